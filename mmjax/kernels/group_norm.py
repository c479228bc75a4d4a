"""Group normalization with few passes over the array."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class NormParameters(NamedTuple):
    """The parameters of a group norm: per channel a factor and an offset."""

    scale: Float[Array, " o"]
    bias: Float[Array, " o"]


def group_norm(
    x: Float[Array, "c ... b"], norm: NormParameters, added: Float[Array, " c"] | None = None
) -> Float[Array, "c ... b"]:
    """Computes γ (x - μ) / √(σ² + 1e-6) + β, with μ and σ² per example and group of channels.

    There are gcd(8, c) groups. Mean and variance are folded into one factor and one offset per
    channel and example, so that the backward pass is a few sums and one pass over the array. The
    plain version is `flax.linen.GroupNorm`.

    Args:
      x: the array to normalize; the order of an image's pixels makes no difference.
      norm: γ and β.
      added: bias of the layer before, if x is still without it: it enters the mean, and no pass
        over the array adds it.
    """
    groups, batch = math.gcd(8, len(x)), x.shape[-1]

    def grouped(of_channels: Float[Array, " c"]) -> Float[Array, "g e 1 1"]:
        return of_channels.astype(jnp.float32).reshape(groups, -1, 1, 1)

    wide = x.astype(jnp.float32).reshape(groups, len(x) // groups, -1, batch)
    shift = grouped(jnp.zeros(len(x)) if added is None else added)
    mean = (wide.mean(axis=2, keepdims=True) + shift).mean(axis=1, keepdims=True)
    # E (x - m)² - (μ - m)² with a constant m near μ: the same variance and derivatives, but no path
    # through the mean, which would take a pass of its own.
    near_mean = jax.lax.stop_gradient(mean)
    squares = jnp.square(wide - (near_mean - shift)).mean(axis=(1, 2), keepdims=True)
    variance = squares - jnp.square(mean - near_mean)
    # (x - mean) / sqrt(variance) * scale + bias as x * factor + offset: one pass over the array.
    factor = grouped(norm.scale) * jax.lax.rsqrt(variance + 1e-6)
    offset = grouped(norm.bias) - (mean - shift) * factor
    return (wide * factor + offset).reshape(x.shape).astype(x.dtype)
