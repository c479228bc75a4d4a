"""Modules, shapes and numbers as text, for tables and errors."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmjax.sharing import Copies
from mmjax.types import Branches, Seen, Tokens


def is_array(x: Any) -> bool:
    """Whether this is an array, one that is traced, or the shape of one."""
    return isinstance(x, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def batch_shapes(x: Any) -> str:
    """The shapes of what a part gets, such as "image float32[64 1 256], text float32[64 1 64]"."""
    if is_array(x):
        return f"{x.dtype}[{' '.join(map(str, x.shape))}]"
    if isinstance(x, Tokens | Branches):
        return batch_shapes(x.values)
    if isinstance(x, Seen):
        return batch_shapes(x.tokens)
    if isinstance(x, tuple) and hasattr(x, "_asdict"):
        x = {name: value for name, value in x._asdict().items() if value is not None}
    if isinstance(x, Mapping):
        return ", ".join(f"{name} {batch_shapes(value)}" for name, value in x.items())
    return type(x).__name__


def example_shapes(x: Any) -> str:
    """The shapes of what a part gets or returns, without examples and copies: "image 1×256"."""
    if isinstance(x, Tokens | Branches):
        return example_shapes(x.values)
    if isinstance(x, Copies):
        one = x.own if x.shared is None else x.shared
        return example_shapes(jax.ShapeDtypeStruct(one.shape[1:], one.dtype))
    if is_array(x):
        return "×".join(map(str, x.shape[1:])) or "number"
    if not isinstance(x, Mapping):
        return ""
    named = {name: example_shapes(value) for name, value in x.items()}
    if len(set(named.values())) == 1:
        return next(iter(named.values())) + " each" * (len(named) > 1)
    return ", ".join(f"{name} {shape}" for name, shape in named.items())


def described(part: Any, depth: int = 1) -> str:
    """A part's type with its attributes, but for those that are empty, zero or off."""
    if isinstance(part, type) or not dataclasses.is_dataclass(part):
        return str(getattr(part, "__name__", type(part).__name__))
    if depth < 0:
        return f"{type(part).__name__}(...)"
    hidden = ("parent", "name") if isinstance(part, nn.Module) else ()
    fields = {
        f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.name not in hidden
    }
    given = {name: value for name, value in fields.items() if not is_off(value)}
    shown = (f"{name}={attribute(value, depth - 1)}" for name, value in given.items())
    return f"{type(part).__name__}({', '.join(shown)})"


def is_off(value: Any) -> bool:
    """Whether a value says that there is nothing, or holds arrays, which are no setting."""
    if value is None or any(map(is_array, jax.tree.leaves(value))):
        return True
    return isinstance(value, bool | int | float | str | tuple | list | Mapping) and not value


def attribute(value: Any, depth: int) -> str:
    """The value of an attribute."""
    if dataclasses.is_dataclass(value):
        return described(value, depth)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {attribute(v, depth)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        # A recurrent cell is known by the name of the function that makes or is its step.
        value = next(filter(callable, value), type(value))
    if isinstance(value, tuple | list) and any(map(dataclasses.is_dataclass, value)):
        return f"[{', '.join(attribute(v, depth) for v in value)}]"
    if callable(value):
        name = getattr(value, "__qualname__", type(value).__name__).partition(".")[0]
        return name.strip("_").removesuffix("_step")
    return repr(value)


def with_unit(number: int | float) -> str:
    """A number with four digits and a unit of thousands, such as "1.230 M"."""
    rounded = float(f"{number:.4g}")
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rounded >= size:
            return f"{rounded / size:#.4g} {unit}"
    return f"{number:.0f}"
