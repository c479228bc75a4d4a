"""Shifted copies of an array, which a convolution multiplies, and their sum, its transpose.

They are two linear primitives, each the transpose of the other. XLA's own gradient would be a sum
of padded arrays, which it fuses with the next such sum and with the operations that follow, into a
loop that reads every number many times. Here each copy is added in place.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float


def concatenate_shifts(x: Float[Array, "c ..."], size: int, axis: int) -> Float[Array, "d ..."]:
    """Concatenates `size` copies of x along the first axis, each shifted by one more.

    Args:
      x: the array, of length n along the shifted axis.
      size: number of copies.
      axis: the shifted axis, not the first; it becomes n - size + 1 long.

    Example:
      >>> import jax.numpy as jnp
      >>> concatenate_shifts(jnp.array([[1, 2, 3, 4]], jnp.float32), 2, axis=1)
      Array([[1., 2., 3.],
             [2., 3., 4.]], dtype=float32)
    """
    return _shift_p.bind(x, size=size, axis=axis, into=0)


def _concatenate_shifts(x: Array, *, size: int, axis: int, into: int) -> Array:
    """Concatenates the copies along the axis `into`."""
    length = x.shape[axis] - size + 1
    copies = [jax.lax.slice_in_dim(x, i, i + length, axis=axis) for i in range(size)]
    return jnp.concatenate(copies, axis=into)


def _add_shifts(x: Array, *, size: int, axis: int, into: int) -> Array:
    """Sums the copies, each shifted back; where a copy has no entry, it counts as zero."""
    copies = jnp.split(x, size, axis=into)
    length, shape = x.shape[axis], list(copies[0].shape)
    shape[axis] += size - 1
    total = jnp.zeros(shape, x.dtype)
    for i, copy in enumerate(copies):
        # The transpose of taking the i-th window is adding to it.
        window = jax.lax.slice_in_dim(total, i, i + length, axis=axis)
        total = jax.lax.dynamic_update_slice_in_dim(total, window + copy, i, axis)
    return total


def _make_linear_primitive(name: str, function: Any) -> Primitive:
    """Makes a primitive of a linear function of one array."""
    primitive = Primitive(name)

    def abstract(x: Any, **params: int) -> Any:
        shape = jax.eval_shape(functools.partial(function, **params), x).shape
        return x.update(shape=shape)

    # A batch axis in front shifts the other axes by one, so that vmap needs no other kernel.
    def batched(args: Any, axes: Any, *, size: int, axis: int, into: int) -> tuple[Array, int]:
        x = jnp.moveaxis(args[0], axes[0], 0)
        return primitive.bind(x, size=size, axis=axis + 1, into=into + 1), 0

    primitive.def_impl(jax.jit(function, static_argnames=("size", "axis", "into")))
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
    batching.primitive_batchers[primitive] = batched
    return primitive


_shift_p = _make_linear_primitive("shift", _concatenate_shifts)
_unshift_p = _make_linear_primitive("unshift", _add_shifts)
ad.deflinear2(_shift_p, lambda ct, _, **params: [_unshift_p.bind(ct, **params)])
ad.deflinear2(_unshift_p, lambda ct, _, **params: [_shift_p.bind(ct, **params)])
