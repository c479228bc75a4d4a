"""The exact GELU, and on CPU a form of it that needs one exponential and one division."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mmjax.kernels.portable import choose_by_platform

# For a >= 0, Phi(-a) = exp(-a²/2) t p(t) with t = 1 / (1 + _RATE a); coefficients from the constant
# up. The polynomial was fitted to erfcx by least squares that were reweighted until the largest
# relative error, 1.6e-8 for a <= 15, was as small as possible. (Form: Abramowitz & Stegun, 7.1.26.)
_RATE = 0.265
_COEFFICIENTS = (
    *(0.10573932, 0.10528552, 0.10241815, 0.061444454, 0.13522908),
    *(-0.112311825, 0.21417388, -0.14241584, 0.030437257),
)
_LARGEST = 15.0  # exp(-15²/2) is 0 in float32; a clipped value makes the limits at infinity exact

_plain_gelu = functools.partial(jax.nn.gelu, approximate=False)


@jax.custom_jvp
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes x Phi(x), where Phi is the distribution function of the normal distribution.

    Source: Hendrycks & Gimpel, 2016 (arXiv:1606.08415). Values and gradients are as exact as those
    of `jax.nn.gelu(approximate=False)`, which is the plain version; with float64 it is used on CPU,
    too.

    Example:
      >>> round(float(gelu(jnp.array(-1.0))), 6)
      -0.158655
    """
    return _choose(x, _compute_value, _plain_gelu)


@gelu.defjvp
def _differentiate(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    return gelu(x), tangent * _choose(x, _compute_slope, _compute_plain_slope)


def _choose(
    x: Float[Array, "..."], cpu: Callable[[Array], Array], plain: Callable[[Array], Array]
) -> Float[Array, "..."]:
    """Chooses by platform; on CPU half precision is computed in float32."""
    if jnp.finfo(x.dtype).bits > 32:
        return plain(x)
    return choose_by_platform(
        x, cpu=lambda x: cpu(x.astype(jnp.float32)).astype(x.dtype), plain=plain
    )


def _compute_value(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes max(x, 0) - |x| Phi(-|x|), which does not cancel where x is negative."""
    a, _, tail = _compute_tail(x)
    return jnp.maximum(x, 0) - a * tail


def _compute_slope(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes Phi(x) + x phi(x); those of x and -x add up to 1."""
    a, bell, tail = _compute_tail(x)
    slope = tail - a * bell * np.float32((2 * np.pi) ** -0.5)
    return jnp.where(x < 0, slope, 1 - slope)


def _compute_plain_slope(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jax.jvp(_plain_gelu, (x,), (jnp.ones_like(x),))[1]


def _compute_tail(x: Float[Array, "..."]) -> tuple[Array, Array, Array]:
    """Returns a = |x|, exp(-a²/2) and Phi(-a)."""
    a = jnp.minimum(jnp.abs(x), _LARGEST)
    bell = jnp.exp(-0.5 * a * a)
    t = 1 / (1 + _RATE * a)
    polynomial = jnp.full_like(t, _COEFFICIENTS[-1])
    for coefficient in _COEFFICIENTS[-2::-1]:
        polynomial = polynomial * t + coefficient
    return a, bell, polynomial * t * bell
