"""Shifted copies of an array: what a convolution multiplies, and what its gradient adds up.

Two linear primitives, each the other's transpose. Left to XLA, the gradient would be a sum of
padded arrays, which it merges with the next such sum and with what follows, into a loop that reads
every number many times over. Here each copy is added in place.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float


def shifted(x: Float[Array, "c ..."], size: int, axis: int) -> Float[Array, "d ..."]:
    """`size` copies of x along the first axis, each shifted by one more along another axis.

    Args:
      x: the array, of length n along that axis.
      size: how many copies.
      axis: which axis, not the first; it becomes n - size + 1 long.
    """
    return shift_p.bind(x, size=size, axis=axis, into=0)


def shift(x: Array, *, size: int, axis: int, into: int) -> Array:
    """The copies, one after the other along the axis `into`."""
    length = x.shape[axis] - size + 1
    copies = [jax.lax.slice_in_dim(x, i, i + length, axis=axis) for i in range(size)]
    return jnp.concatenate(copies, axis=into)


def unshift(x: Array, *, size: int, axis: int, into: int) -> Array:
    """The sum of the copies, each shifted back; where a copy has nothing, it counts as zero."""
    copies = jnp.split(x, size, axis=into)
    length, shape = x.shape[axis], list(copies[0].shape)
    shape[axis] += size - 1
    total = jnp.zeros(shape, x.dtype)
    for i, copy in enumerate(copies):
        own = jax.lax.slice_in_dim(total, i, i + length, axis=axis)
        total = jax.lax.dynamic_update_slice_in_dim(total, own + copy, i, axis)
    return total


def linear(name: str, function: Any) -> Primitive:
    """A primitive that does what a linear function of one array does."""
    primitive = Primitive(name)

    def abstract(x: Any, **params: int) -> Any:
        shape = jax.eval_shape(functools.partial(function, **params), x).shape
        return x.update(shape=shape)

    def batched(args: Any, axes: Any, *, size: int, axis: int, into: int) -> tuple[Array, int]:
        x = jnp.moveaxis(args[0], axes[0], 0)
        return primitive.bind(x, size=size, axis=axis + 1, into=into + 1), 0

    primitive.def_impl(jax.jit(function, static_argnames=("size", "axis", "into")))
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
    batching.primitive_batchers[primitive] = batched
    return primitive


shift_p = linear("shift", shift)
unshift_p = linear("unshift", unshift)
ad.deflinear2(shift_p, lambda ct, _, **params: [unshift_p.bind(ct, **params)])
ad.deflinear2(unshift_p, lambda ct, _, **params: [shift_p.bind(ct, **params)])
