"""Deprecated names: those of modules work for one release; those of arguments are refused."""

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Any])


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
        warnings.warn(f"{module}.{name} is now {home}.{new}", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(home), new)

    return find_name


def refuse_old_arguments(**names: str) -> Callable[[_Function], _Function]:
    """Makes a decorator that refuses old names of arguments, with their current ones.

    Args:
      names: {old name: current name}.

    Example:
      >>> @refuse_old_arguments(colour="color")
      ... def draw(color=None): ...
      >>> draw(colour="red")
      Traceback (most recent call last):
      TypeError: draw has no argument 'colour'; it is now called 'color'.
    """

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            for old in names.keys() & options.keys():
                raise TypeError(
                    f"{function.__name__} has no argument {old!r}; it is now called {names[old]!r}."
                )
            return function(*arguments, **options)

        return cast(_Function, call)

    return decorate
