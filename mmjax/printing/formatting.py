"""Formats modules, shapes and numbers as text for tables and errors."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmjax.sharing import Copies
from mmjax.types import Branches, Intermediates, Tokens


def is_array(x: Any) -> bool:
    """Returns whether `x` is an array, a traced array or a `jax.ShapeDtypeStruct`."""
    return isinstance(x, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def format_batch_shapes(x: Any) -> str:
    """Formats the shapes of a part's input with dtypes and the batch dimension.

    Example:
      >>> format_batch_shapes({"image": np.zeros((64, 1, 256), np.float32)})
      'image float32[64 1 256]'
    """
    if is_array(x):
        return f"{x.dtype}[{' '.join(map(str, x.shape))}]"
    if isinstance(x, Tokens | Branches):
        return format_batch_shapes(x.values)
    if isinstance(x, Intermediates):
        return format_batch_shapes(x.tokens)
    if isinstance(x, tuple) and hasattr(x, "_asdict"):
        x = {name: value for name, value in x._asdict().items() if value is not None}
    if isinstance(x, Mapping):
        return ", ".join(f"{name} {format_batch_shapes(value)}" for name, value in x.items())
    return type(x).__name__


def format_example_shapes(x: Any) -> str:
    """Formats the shapes of a part's input or output, without batch dimension and copies.

    Example:
      >>> format_example_shapes({"image": np.zeros((64, 1, 256), np.float32)})
      '1×256'
    """
    if isinstance(x, Tokens | Branches):
        return format_example_shapes(x.values)
    if isinstance(x, Copies):
        copies = x.own if x.shared is None else x.shared
        return format_example_shapes(jax.ShapeDtypeStruct(copies.shape[1:], copies.dtype))
    if is_array(x):
        return "×".join(map(str, x.shape[1:])) or "number"
    if not isinstance(x, Mapping):
        return ""
    named = {name: format_example_shapes(value) for name, value in x.items()}
    if len(set(named.values())) == 1:
        return next(iter(named.values())) + " each" * (len(named) > 1)
    return ", ".join(f"{name} {shape}" for name, shape in named.items())


def format_module(part: Any, depth: int = 1) -> str:
    """Formats a part's type with its attributes, except those that are empty, zero or False.

    Example:
      >>> from mmjax.fusion import Gated
      >>> format_module(Gated(width=64))
      'Gated(width=64)'
    """
    if isinstance(part, type) or not dataclasses.is_dataclass(part):
        return str(getattr(part, "__name__", type(part).__name__))
    if depth < 0:
        return f"{type(part).__name__}(...)"
    hidden = ("parent", "name") if isinstance(part, nn.Module) else ()
    arguments = []
    for field in dataclasses.fields(part):
        if field.name not in hidden and not _is_omitted(value := getattr(part, field.name)):
            arguments.append(f"{field.name}={_format_attribute(value, depth - 1)}")
    return f"{type(part).__name__}({', '.join(arguments)})"


def _is_omitted(value: Any) -> bool:
    """Returns whether a value is empty, zero or False, or holds arrays, which are not settings."""
    if value is None or any(map(is_array, jax.tree.leaves(value))):
        return True
    return isinstance(value, bool | int | float | str | tuple | list | Mapping) and not value


def _format_attribute(value: Any, depth: int) -> str:
    """Formats the value of an attribute."""
    if dataclasses.is_dataclass(value):
        return format_module(value, depth)
    if isinstance(value, Mapping):
        return (
            "{" + ", ".join(f"{k!r}: {_format_attribute(v, depth)}" for k, v in value.items()) + "}"
        )
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        # A recurrent cell has the name of the function that makes its step, or is it.
        value = next(filter(callable, value), type(value))
    if isinstance(value, tuple | list) and any(map(dataclasses.is_dataclass, value)):
        return f"[{', '.join(_format_attribute(v, depth) for v in value)}]"
    if callable(value):
        name = getattr(value, "__qualname__", type(value).__name__).partition(".")[0]
        return name.strip("_").removesuffix("_step")
    return repr(value)


def format_settings(settings: Mapping[str, Any], prefix: str = "") -> str:
    """Formats settings as they are written on a command line, without a prefix of their paths.

    Example:
      >>> format_settings({"optimizer.b1": 0.9, "optimizer.b2": 0.99}, "optimizer.")
      'b1=0.9, b2=0.99'
    """
    return ", ".join(f"{path.removeprefix(prefix)}={value}" for path, value in settings.items())


def format_split_sizes(sizes: Mapping[str, int]) -> str:
    """Formats the number of examples in each split.

    Example:
      >>> format_split_sizes({"train": 60000, "test": 10000})
      '60,000 train, 10,000 test'
    """
    return ", ".join(f"{size:,} {split}" for split, size in sizes.items())


def format_with_unit(number: int | float) -> str:
    """Formats a number with four digits and a unit of thousands.

    Example:
      >>> format_with_unit(1_230_000)
      '1.230 M'
    """
    # Rounded first, since 999,950 is 1.000 M and not 1000 k.
    rounded = float(f"{number:.4g}")
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rounded >= size:
            return f"{rounded / size:#.4g} {unit}"
    return f"{number:.0f}"
