"""Public names: how users write what a configuration may call.

`encoders.ConvEncoder` or `ConvEncoder` is mmjax's, `optax.adamw`, `nn.Dense` (flax.linen),
`jax.nn.gelu` and `jnp.tanh` are the libraries', and `module:name` is anybody's: the user typed the
module, so it may be imported. Names without a module must be on the list of
`mmjax.config.constructors`, so that a stored configuration may hold them too.
"""

import difflib
import importlib
import importlib.util
import itertools
import logging
import types
from collections.abc import Iterable
from typing import Any

from mmjax.config import constructors
from mmjax.config.errors import ConfigError
from mmjax.old_names import find_current_name

_BLOCKS = (
    "encoders",
    "pretrained.backbones",
    "pretrained",
    "fusion",
    "sharing",
    "heads",
    "losses",
    "metrics",
    "auxiliary",
    "balance",
    "modalities.imbalance",
    "data",
    "model",
    "experiment",
    "optim",
)
_LIBRARY_MODULES = {
    "optax": "optax",
    "nn": "flax.linen",
    "flax.linen": "flax.linen",
    "jnp": "jax.numpy",
    "jax.numpy": "jax.numpy",
    "jax.nn": "jax.nn",
}


def is_inside_packages(module: str, packages: Iterable[str]) -> bool:
    """Checks whether a dotted module name is one of the packages or lies in one."""
    return any(module == p or module.startswith(p + ".") for p in packages)


def resolve_name(name: str) -> Any:
    """Finds the public callable that a user means by `name`.

    Raises:
      ConfigError: there is none; the message lists the nearest.

    Example:
      >>> resolve_name("optax.adam").__name__
      'adam'
    """
    if ":" in name:
        return _import_name(*name.split(":", 1))
    value = _look_up(name)
    if constructors.is_constructor(value):
        return value
    renamed = _look_up_old(name)
    if renamed is None:
        raise ConfigError(_describe_unknown_name(name))
    logging.getLogger("mmjax").warning("%s is now %s; please write that.", name, renamed.name)
    return renamed.value


def is_public_name(name: str) -> bool:
    """Checks whether a name without a module is that of a public callable."""
    try:
        return constructors.is_constructor(_look_up(name))
    except ConfigError:
        return False


def format_public_name(value: Any) -> str:
    """Returns the name that a user would write for a callable, or its own name."""
    name = getattr(value, "__name__", None) or repr(value)
    # A library may export a function of a private module under its own name.
    for prefix, module in _LIBRARY_MODULES.items():
        if vars(importlib.import_module(module)).get(name) is value:
            return f"{prefix}.{name}"
    return getattr(value, "__qualname__", name)


def _find_nearest_names(word: str, valid: Iterable[str], count: int = 3) -> list[str]:
    """Returns the valid names closest to a misspelled one, those with the same last part first."""
    valid = sorted(set(valid))
    last = word.lower().rpartition(".")[2]
    # The right name in the wrong package is a better guess than a similar spelling.
    nearest = [name for name in valid if name.lower().rpartition(".")[2] == last]
    lower = list(map(str.lower, valid))
    for close in difflib.get_close_matches(word.lower(), lower, n=count, cutoff=0.6):
        nearest += [name for name in valid if name.lower() == close]
    return list(dict.fromkeys(nearest))[:count]


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Formats the nearest names as " Did you mean a, b or c?"; "" if there are none."""
    names = _find_nearest_names(word, valid)
    if not names:
        return ""
    *rest, last = names
    return f" Did you mean {', '.join(rest) + ' or ' if rest else ''}{last}?"


def _import_name(module: str, name: str) -> Any:
    """Imports the object that the user named as `module:name`."""
    try:
        value: Any = importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"cannot import module '{module}': {error}.") from error
    for part in name.split("."):
        if not hasattr(value, part):
            near = did_you_mean(part, dir(value))
            raise ConfigError(f"module '{module}' has no '{name}'.{near}")
        value = getattr(value, part)
    return value


def _look_up(name: str) -> Any:
    """Returns the object that a bare or dotted name refers to; None if it is unknown."""
    head, _, rest = name.rpartition(".")
    module = _find_namespace(head)
    if module is None:
        return None if head else _find_in_blocks(name)
    return None if rest.startswith("_") else getattr(module, rest, None)


def _look_up_old(name: str) -> constructors.Constructor | None:
    """Returns the constructor that had the bare or dotted name before it was renamed."""
    head, _, rest = name.removeprefix("mmjax.").rpartition(".")
    for block in _BLOCKS if not head else [head]:
        current = find_current_name(f"mmjax.{block}", rest)
        if current[1] != rest:
            return constructors.find_constructor_by_name(*current)
    return None


def _find_namespace(dotted: str) -> types.ModuleType | None:
    """Returns the module that a dotted prefix stands for, if it is a public one."""
    if not dotted or "._" in dotted:
        return None
    known = _LIBRARY_MODULES | {block: f"mmjax.{block}" for block in _BLOCKS} | {"mmjax": "mmjax"}
    start = next(
        (k for k in sorted(known, key=len, reverse=True) if is_inside_packages(dotted, [k])), None
    )
    if start is None:
        return None
    full = known[start] + dotted[len(start) :]
    try:
        return importlib.import_module(full)
    except ImportError:
        return None


def _find_in_blocks(name: str) -> Any:
    """Finds a bare name among mmjax's blocks.

    Raises:
      ConfigError: two blocks use the name for different things.
    """
    members = {}
    for block, module in _iterate_blocks():
        if name in _list_public_names(module):
            members[f"{block}.{name}"] = vars(module)[name]
    # A name that several packages have, for different things, must be written with its package.
    if len(set(map(id, members.values()))) > 1:
        raise ConfigError(f"'{name}' is ambiguous: write one of {list(members)}.")
    return next(iter(members.values()), None)


def _iterate_blocks() -> Iterable[tuple[str, types.ModuleType]]:
    for block in _BLOCKS:
        if importlib.util.find_spec(f"mmjax.{block}"):
            yield block, importlib.import_module(f"mmjax.{block}")


def _list_public_names(module: types.ModuleType) -> list[str]:
    """Lists the names of a module that stand for public constructors."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and constructors.is_constructor(value)
    ]


def _describe_unknown_name(name: str) -> str:
    """Describes that a name is unknown, with the nearest public names."""
    modules = dict(_iterate_blocks())
    valid: list[str] = []
    if "." not in name:
        valid += itertools.chain(*map(_list_public_names, modules.values()))
    modules["optax"] = importlib.import_module("optax")
    head = name.rpartition(".")[0]
    if head and (module := _find_namespace(head)):
        modules[head] = module
    for prefix, module in modules.items():
        valid += [f"{prefix}.{public}" for public in _list_public_names(module)]
    return (
        f"unknown name '{name}'."
        + did_you_mean(name, valid)
        + " A name of your own is written module:name, a string in quotes."
    )
