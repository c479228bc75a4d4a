"""Stores a configuration as JSON, and loads one without trusting it.

The format is fiddle's. Names are stored as users write them (`optax.adam`, not the private module
that defines it), and those of the experiment's own file under a marker, since that file is
`__main__` in one run and a module in the next. Loading looks names up in the list of
`mmjax.config.constructors`; others must be of the experiment's own file or of modules that the user
allows. Calls must fit the parameters that they are given to, before any of them is made.
"""

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from fiddle import daglish
from fiddle.experimental import serialization

from mmjax.config import constructors, public_names
from mmjax.config.absolute_paths import with_absolute_paths
from mmjax.config.check_calls import check_calls
from mmjax.config.errors import ConfigError
from mmjax.old_names import find_current_name

OWN = "<experiment>"
# What the format itself is made of.
BUILTINS = {"dict", "list", "tuple", "set", "frozenset", "bytes", "slice", "NoneType"}
FORMAT = {
    "builtins": BUILTINS,
    "fiddle._src.config": {"Config", "BuildableTraverserMetadata", "NoValue"},
    "fiddle._src.partial": {"Partial"},
    "fiddle._src.signatures": {"NoValue"},
    "pathlib": {"PosixPath"},
}
# What loading damaged text may end in: fiddle takes its form for granted.
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    serialization.DeserializationError,
)


def dump(config: Any, own: ModuleType | None = None) -> str:
    """The configuration as JSON text; equal configurations made in one way give equal text.

    Relative paths of data are stored as absolute ones.

    Args:
      config: the configuration.
      own: the module of the experiment's own file, if it is not the main module.

    Raises:
      ConfigError: it holds a value that cannot be stored, such as a local function or an array.
    """
    _register_constants()
    try:
        data = json.loads(serialization.dump_json(with_absolute_paths(config)))
    except (serialization.UnserializableValueError, AttributeError, ImportError) as error:
        raise ConfigError(
            f"this configuration cannot be stored: {str(error).splitlines()[0]} It may hold "
            "numbers, strings, containers, and functions and classes from the top of a file."
        ) from error
    except RecursionError:
        raise ConfigError("this configuration cannot be stored: it is nested too deeply.") from None
    mine = {"__main__", own.__name__ if own else "__main__"}
    for reference in _references(data):
        reference.update(_public_reference(reference["module"], reference["name"], mine))
    return json.dumps(data, indent=1)


def load(text: str, *, allow: Sequence[str] = (), own: ModuleType | None = None) -> Any:
    """The configuration that `dump` stored.

    Args:
      text: the JSON text.
      allow: names of further modules whose functions and classes it may use.
      own: the experiment's own file, in which the names that it defined are looked up.

    Raises:
      ConfigError: damaged text, or a name of a module that is not allowed.
    """
    data, references = _parse(text)
    known = [_resolve_reference(reference, allow, own) for reference in references]
    try:
        config = serialization.load_json(json.dumps(data), _Policy(known))
    except DAMAGE as error:
        raise ConfigError(f"the stored configuration is damaged: {error!r}.") from error
    check_calls(config)
    return config


def modules_of(text: str) -> set[str]:
    """The modules that a stored configuration names, but for those that need no leave."""
    return {
        module
        for reference in _parse(text)[1]
        for module, name in [(reference["module"], reference["name"])]
        if module != OWN
        and not _is_format(module, name)
        and constructors.find_constructor(module, name) is None
    }


def own_names(text: str) -> list[str]:
    """The names that a stored configuration uses of its experiment's own file, sorted."""
    return sorted({r["name"] for r in _parse(text)[1] if r["module"] == OWN})


def uses_own_file(text: str) -> bool:
    """Whether a stored configuration names something that its experiment's file defines."""
    return bool(own_names(text))


def _parse(text: str) -> tuple[Any, list[dict[str, Any]]]:
    """Reads a stored configuration; returns it and the references to Python objects in it.

    Raises:
      ConfigError: it is damaged.
    """
    try:
        data = json.loads(text)
        references = list(_references(data))
    except DAMAGE as error:
        raise ConfigError(f"the stored configuration is damaged: {error}.") from error
    for reference in references:
        if not all(isinstance(reference.get(key), str) for key in ("module", "name")):
            raise ConfigError("the stored configuration is damaged: a reference names no object.")
    return data, references


class _Policy(serialization.PyrefPolicy):
    """Lets fiddle look up the references that have been resolved, and nothing else."""

    def __init__(self, known: Sequence[tuple[str, str]]) -> None:
        self.known = set(known)

    def allows_import(self, module: str, symbol: str) -> bool:
        return (module, symbol) in self.known

    def allows_value(self, value: Any) -> bool:
        return True


def _resolve_reference(
    reference: dict[str, Any], allow: Sequence[str], own: ModuleType | None
) -> tuple[str, str]:
    """Replaces a reference by one that can be looked up safely, and returns its two parts.

    Raises:
      ConfigError: it names nothing, or what neither the list nor the user permits.
    """
    module, name = reference["module"], reference["name"]
    current = find_current_name(module, name)
    if module == OWN:
        found = _own_name(name, own), name
        _check_definition(own, name, [found[0], *allow])
    elif _is_format(module, name):
        found = module, name
    elif constructor := constructors.find_constructor(module, name):
        found = constructor.module, constructor.name
    elif public_names.inside(module, allow) or public_names.inside(current[0], allow):
        found = current
        _check_definition(_import_allowed(found[0]), found[1], [*allow, found[0]])
    else:
        raise ConfigError(f"the configuration uses {name} of module '{module}', {_reason(module)}")
    reference.update(module=found[0], name=found[1])
    return found


def _reason(module: str) -> str:
    """Says why a stored configuration may not use a module, and what to do about it."""
    if module.partition(".")[0] in sys.stdlib_module_names:
        return (
            "which is not trusted: by Python's own library a run could do anything. If you know "
            f"what it calls, add --allow {module}."
        )
    is_home = any(module == home for home, _ in constructors.constructors())
    reason = "is not there or not public" if is_home else "is not trusted"
    return f"which {reason}. If you trust it, add --allow {module}."


def _import_allowed(module: str) -> ModuleType:
    """Imports a module that the user allows."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the configuration uses module '{module}', which is not there: {error}. If it lies "
            "beside the experiment's file, add its folder to PYTHONPATH."
        ) from error


def _check_definition(module: Any, name: str, homes: Sequence[str]) -> None:
    """Refuses a name that leads out of the modules that the user allows.

    Without this, `my_module.os.system` could be called because `my_module` imports `os`.
    """
    value = module
    for part in name.split("."):
        if part.startswith("__") or (isinstance(value, ModuleType) and value is not module):
            raise ConfigError(f"the configuration uses {name!r}, which is not trusted.")
        if not hasattr(value, part):
            raise ConfigError(
                f"the stored configuration uses what is not there: module '{module.__name__}' "
                f"defines no {name!r}."
            )
        value = getattr(value, part)
    home = getattr(value, "__module__", None)
    is_theirs = isinstance(home, str) and public_names.inside(home, homes)
    if not (constructors.is_constructor(value) or is_theirs):
        raise ConfigError(
            f"the configuration uses {name!r} of module '{module.__name__}', which is "
            f"{value!r} of elsewhere and not trusted."
        )


def _is_format(module: str, name: str) -> bool:
    return name in FORMAT.get(module, ())


def _references(data: Any) -> Iterator[dict[str, Any]]:
    """The names of Python objects in a configuration as JSON."""
    if isinstance(data, dict):
        if data.get("type") == "pyref":
            yield data
        for value in data.values():
            yield from _references(value)
    elif isinstance(data, list):
        for value in data:
            yield from _references(value)


def _public_reference(module: str, name: str, own: set[str]) -> dict[str, str]:
    """A name's marker if it is of the experiment's file, or its public home if it has one."""
    if module in own:
        return {"module": OWN, "name": name}
    if module.startswith("pathlib"):  # Python 3.13 defines it in pathlib._local.
        return {"module": "pathlib", "name": name}
    value: Any = sys.modules[module]
    for part in name.split("."):
        value = getattr(value, part)
    if constructor := constructors.constructor_of(value):
        module, name = constructor.module, constructor.name
    return {"module": module, "name": name}


def _own_name(name: str, own: ModuleType | None) -> str:
    if own is None:
        raise ConfigError(
            f"the configuration uses {name} of its experiment's own file; "
            "name that file: mmjax run FILE --from-run DIR."
        )
    return own.__name__


@cache
def _register_constants() -> None:
    """Tells fiddle of paths, and of functions that are not plain ones, such as jax.nn.relu."""
    serialization.register_node_traverser(
        type(Path()),
        flatten_fn=lambda path: ((str(path),), None),
        unflatten_fn=lambda values, _: Path(*values),
        path_elements_fn=lambda _: (daglish.Attr("path"),),
    )
    for module, name, _ in _constants():
        serialization.register_constant(module, name, compare_by_identity=True)


@cache
def _constants() -> list[tuple[str, str, Callable[..., Any]]]:
    import jax.nn
    import jax.numpy as jnp
    import optax

    plain = (type, FunctionType, ModuleType)
    return [
        (module.__name__, name, value)
        for module in (jax.nn, jnp, optax)
        for name, value in vars(module).items()
        if callable(value) and not isinstance(value, plain) and not name.startswith("_")
    ]
