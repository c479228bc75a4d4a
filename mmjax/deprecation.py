"""Deprecated names of modules: each still works for one release, with a warning."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def forward_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Makes the `__getattr__` of a module whose names have moved.

    Args:
      module: the module's `__name__`.
      names: {old name: "new.module:new_name"}.

    Example:
      >>> find = forward_names("mmjax.old", {"Old": "mmjax.deprecation:forward_names"})
      >>> with warnings.catch_warnings(record=True) as caught:
      ...     warnings.simplefilter("always")
      ...     find("Old") is forward_names
      True
      >>> print(caught[0].message)
      mmjax.old.Old is now mmjax.deprecation.forward_names
    """

    def find_name(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = names[name].partition(":")
        text = f"{module}.{name} is now {home}.{new}"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(home), new)

    return find_name
