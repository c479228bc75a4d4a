"""Public names: what a configuration may call, and how a user writes it.

`encoders.ConvEncoder` or `ConvEncoder` is mmjax's, `optax.adamw`, `nn.Dense` (flax.linen),
`jax.nn.gelu` and `jnp.tanh` are the libraries', and `module:name` is anybody's: the user typed the
module, so it may be imported. Loading a stored configuration trusts the same libraries and no
others.
"""

import difflib
import importlib
import importlib.util
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mmjax.config.errors import ConfigError

BLOCKS = (
    "encoders",
    "fusion",
    "sharing",
    "heads",
    "losses",
    "auxiliary",
    "balance",
    "data",
    "model",
    "experiment",
)
LIBRARIES = {
    "optax": "optax",
    "nn": "flax.linen",
    "flax.linen": "flax.linen",
    "jnp": "jax.numpy",
    "jax.numpy": "jax.numpy",
    "jax.nn": "jax.nn",
}
# What these may hold reads or writes files, or starts programs.
WITHHELD = ("mmjax.cli", "mmjax.config", "mmjax.provenance", "mmjax.train")
FILES = {"load", "save", "savez", "fromfile"}
PRIVATE_HOMES = ("jax._src.nn", "jax._src.numpy")


def inside(module: str, packages: Iterable[str]) -> bool:
    """Whether a dotted module name is one of the packages or lies in one."""
    return any(module == p or module.startswith(p + ".") for p in packages)


def trusted(module: str, name: str, allow: Sequence[str] = ()) -> bool:
    """Whether a stored configuration may name `name` of `module`."""
    if any(part.startswith("__") for part in name.split(".")):
        return False
    if inside(module, allow):
        return True
    known = inside(module, ("mmjax", *LIBRARIES.values(), *PRIVATE_HOMES))
    return known and not inside(module, WITHHELD) and name not in FILES


def trusted_value(value: Any, allow: Sequence[str] = ()) -> bool:
    """Whether a value found under a trusted name is itself defined in a trusted module.

    Without this, `mmjax.x` could be a way to `os.system` by what `mmjax.x` imports.
    """
    home = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", getattr(value, "__name__", ""))
    return callable(value) and isinstance(home, str) and trusted(home, name, allow)


def resolve(name: str) -> Callable[..., Any]:
    """The public callable that a user means by `name`.

    Raises:
      ConfigError: there is none; the message lists the nearest.
    """
    if ":" in name:
        return _of_module(*name.split(":", 1))
    head, _, rest = name.rpartition(".")
    module = _namespace(head)
    value = getattr(module, rest, None) if module and not rest.startswith("_") else None
    if module is None and not head:
        value = _block_member(name)
    if value is None or not trusted_value(value):
        raise ConfigError(_unknown(name))
    return value


def is_public(name: str) -> bool:
    """Whether `resolve` finds the name."""
    try:
        resolve(name)
    except ConfigError:
        return False
    return True


def public_name(value: Any) -> str:
    """The name under which a user would write a callable, or its own name."""
    name = getattr(value, "__name__", None) or repr(value)
    for prefix, module in LIBRARIES.items():
        if getattr(importlib.import_module(module), name, None) is value:
            return f"{prefix}.{name}"
    return getattr(value, "__qualname__", name)


def nearest(word: str, valid: Iterable[str], count: int = 3) -> list[str]:
    """The valid names most like a misspelt one, those with the same last part first."""
    valid = sorted(set(valid))
    last = word.lower().rpartition(".")[2]
    same_end = [v for v in valid if v.lower().rpartition(".")[2] == last]
    lower = [v.lower() for v in valid]
    close = difflib.get_close_matches(word.lower(), lower, n=count, cutoff=0.6)
    found = [v for c in close for v in valid if v.lower() == c]
    return list(dict.fromkeys([*same_end, *found]))[:count]


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """' Did you mean a, b or c?' or nothing."""
    found = nearest(word, valid)
    if not found:
        return ""
    *rest, last = found
    return f" Did you mean {', '.join(rest) + ' or ' if rest else ''}{last}?"


def _of_module(module: str, name: str) -> Callable[..., Any]:
    """Imports what the user typed as `module:name`."""
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


def _namespace(dotted: str) -> types.ModuleType | None:
    """The module that a dotted prefix stands for, if it is a public one."""
    if not dotted or "._" in dotted:
        return None
    known = LIBRARIES | {block: f"mmjax.{block}" for block in BLOCKS} | {"mmjax": "mmjax"}
    start = next((k for k in sorted(known, key=len, reverse=True) if inside(dotted, [k])), None)
    if start is None:
        return None
    full = known[start] + dotted[len(start) :]
    if inside(full, WITHHELD):
        return None
    try:
        return importlib.import_module(full)
    except ImportError:
        return _submodule(full)


def _submodule(full: str) -> types.ModuleType | None:
    """A module that its parent offers under another name, such as flax.linen.initializers."""
    parent, _, name = full.rpartition(".")
    try:
        value = getattr(importlib.import_module(parent), name, None)
    except ImportError:
        return None
    return value if isinstance(value, types.ModuleType) and trusted(value.__name__, name) else None


def _block_member(name: str) -> Any:
    """Finds a bare name among mmjax's blocks.

    Raises:
      ConfigError: two blocks use the name for different things.
    """
    found = {b: vars(m)[name] for b, m in _blocks() if name in _public(m)}
    if len({id(v) for v in found.values()}) > 1:
        raise ConfigError(f"'{name}' is ambiguous: write one of {[f'{b}.{name}' for b in found]}.")
    return next(iter(found.values()), None)


def _blocks() -> Iterable[tuple[str, types.ModuleType]]:
    for block in BLOCKS:
        if importlib.util.find_spec(f"mmjax.{block}"):
            yield block, importlib.import_module(f"mmjax.{block}")


def _public(module: types.ModuleType) -> list[str]:
    """The public callables of a module, leaving out what it imports from elsewhere."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and trusted_value(value)
    ]


def _unknown(name: str) -> str:
    """The message for a name that nothing public has."""
    valid = [f"{b}.{n}" for b, module in _blocks() for n in _public(module)]
    if "." not in name:
        valid += [n.split(".", 1)[1] for n in valid]
    valid += [f"optax.{n}" for n in _public(importlib.import_module("optax"))]
    head = name.rpartition(".")[0]
    if head and (module := _namespace(head)):
        valid += [f"{head}.{n}" for n in _public(module)]
    return (
        f"unknown name '{name}'."
        + did_you_mean(name, valid)
        + " A name of your own is written module:name, a string in quotes."
    )
