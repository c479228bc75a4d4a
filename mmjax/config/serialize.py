"""Stores a configuration as JSON, and loads one without trusting it.

The format is fiddle's. Names are stored as users write them (`optax.adam`, not the private module
that defines it), and those of the experiment's own file under a marker, since that file is
`__main__` in one run and a module in the next. Loading builds only names of mmjax, optax, flax,
JAX's activations and arrays, the experiment's own file, and modules that the user allows.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import ModuleType
from typing import Any

from fiddle.experimental import serialization

from mmjax.config import names
from mmjax.config.errors import ConfigError

OWN = "<experiment>"
PUBLIC = ("optax", "jax.nn", "jax.numpy", "jax.nn.initializers", "flax.linen")
# What the format itself is made of.
BUILTINS = {"dict", "list", "tuple", "set", "frozenset", "bytes", "slice", "NoneType"}
FIDDLE = {
    "fiddle._src.config": {"Config", "BuildableTraverserMetadata", "NoValue"},
    "fiddle._src.partial": {"Partial"},
    "fiddle._src.signatures": {"NoValue"},
}


def dump(config: Any, own: ModuleType | None = None) -> str:
    """The configuration as JSON text; equal configurations made in one way give equal text.

    Args:
      config: the configuration.
      own: the module of the experiment's own file, if it is not the main module.

    Raises:
      ConfigError: it holds a value that cannot be stored, such as a local function or an array.
    """
    _register_constants()
    try:
        data = json.loads(serialization.dump_json(config))
    except (serialization.UnserializableValueError, AttributeError, ImportError) as error:
        raise ConfigError(
            f"this configuration cannot be stored: {str(error).splitlines()[0]} It may hold "
            "numbers, strings, containers, and functions and classes from the top of a file."
        ) from error
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
    try:
        data = json.loads(text)
        references = list(_references(data))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the stored configuration is damaged: {error}.") from error
    for reference in references:
        if reference["module"] == OWN:
            reference["module"] = _own_name(reference["name"], own)
    policy = _Policy((*allow, *([own.__name__] if own else [])))
    try:
        return serialization.load_json(json.dumps(data), policy)
    except (KeyError, TypeError, serialization.DeserializationError) as error:
        raise ConfigError(f"the stored configuration is damaged: {error!r}.") from error
    except (ImportError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"the stored configuration uses what is not there: {reason}.") from error


def modules_of(text: str) -> set[str]:
    """The modules that a stored configuration names, but for those that need no leave."""
    named = {(r["module"], r["name"]) for r in _references(json.loads(text))}
    return {m for m, n in named if m != OWN and not _is_format(m, n) and not names.trusted(m, n)}


def uses_own_file(text: str) -> bool:
    """Whether a stored configuration names something that its experiment's file defines."""
    return any(r["module"] == OWN for r in _references(json.loads(text)))


class _Policy(serialization.PyrefPolicy):
    """Lets fiddle import trusted names only; `allow` adds modules."""

    def __init__(self, allow: Sequence[str]) -> None:
        self.allow = allow

    def allows_import(self, module: str, symbol: str) -> bool:
        if _is_format(module, symbol) or names.trusted(module, symbol, self.allow):
            return True
        raise ConfigError(
            f"the configuration uses {symbol} of module '{module}', which is not trusted. "
            f"If you trust it, add --allow {module}."
        )

    def allows_value(self, value: Any) -> bool:
        if _is_format(getattr(value, "__module__", ""), getattr(value, "__qualname__", "")):
            return True
        if names.trusted_value(value, self.allow) or _is_constant(value):
            return True
        raise ConfigError(f"the configuration uses {value!r}, which is not trusted.")


def _is_format(module: str, name: str) -> bool:
    return (module == "builtins" and name in BUILTINS) or name in FIDDLE.get(module, ())


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
    value: Any = sys.modules[module]
    for part in name.split("."):
        value = getattr(value, part)
    homes = (h for h in PUBLIC if h in sys.modules and names.inside(module, [h.split(".")[0]]))
    home = next((h for h in homes if getattr(sys.modules[h], name, None) is value), module)
    return {"module": home, "name": name}


def _own_name(name: str, own: ModuleType | None) -> str:
    if own is None:
        raise ConfigError(
            f"the configuration uses {name} of its experiment's own file; "
            "name that file: mmjax run FILE --from-run DIR."
        )
    return own.__name__


@cache
def _register_constants() -> None:
    """Tells fiddle of functions that are not plain ones, such as jax.nn.relu."""
    for module, name, _ in _constants():
        serialization.register_constant(module, name, compare_by_identity=True)


@cache
def _constants() -> list[tuple[str, str, Callable[..., Any]]]:
    import jax.nn
    import jax.numpy as jnp
    import optax

    plain = (type, type(dump), ModuleType)
    return [
        (module.__name__, name, value)
        for module in (jax.nn, jnp, optax)
        for name, value in vars(module).items()
        if callable(value) and not isinstance(value, plain) and not name.startswith("_")
    ]


def _is_constant(value: Any) -> bool:
    return any(value is constant for _, _, constant in _constants())
