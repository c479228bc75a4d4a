"""CAGrad: the update near the mean gradient with the largest gain of the worst task."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.balance.base import Balancer, Wrt
from mmjax.balance.from_functions import from_gram
from mmjax.balance.solvers.convex import unit_gram
from mmjax.balance.solvers.simplex import uniform_weights
from mmjax.balance.solvers.spectrum import truncated_eigh
from mmjax.balance.solvers.worst_gain import maximize_worst_gain
from mmjax.kernels.linear_algebra import precise_dot


def cagrad(
    c: float = 0.5,
    divide: bool = False,
    *,
    wrt: Wrt = "params",
    weigh_heads: bool = False,
    rescale: bool = False,
) -> Balancer:
    """Maximizes min_i g_i . d over the d with |d - g_0| <= c |g_0|, where g_0 is the mean gradient.

    The solution is d = g_0 + c |g_0| g_w / |g_w|, where w in the simplex minimizes
    g_w . g_0 + c |g_0| |g_w| and g_w = sum_i w_i g_i. With c = 0 it is the mean gradient; with
    c >= 1 no loss increases to first order, and the only fixed points are Pareto stationary.

    |d - g_0| exceeds c |g_0| by at most one thousandth, for any gradients. What a Gramian in
    float32 cannot distinguish from rounding is left out: if |g_0| is below about 1/500 of the mean
    norm of the gradients, d is g_0, and the weights of unit gradients differ from their mean by at
    most about 500 c |g_0| (1/200 and 200 for 40 tasks).

    Args:
      c: radius of the ball around the mean gradient, in units of its norm; 0 or more.
      divide: whether d is divided by 1 + c^2, as in the authors' code, but not in the paper.
        That code also multiplies by the number of tasks; `rescale` is similar.
      wrt: see `from_gram`.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Source: Liu et al., NeurIPS 2021 (arXiv:2110.14048), algorithm 1. A zero gradient counts in the
    mean; since no update improves its task, it is left out of the minimum.

    Raises:
      ValueError: if c is negative.

    Example:
      By symmetry g_w is parallel to g_0, so that d = (1 + c) g_0.

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import cagrad, to_aggregator
      >>> aggregator = to_aggregator(cagrad(c=0.5), ("a", "b"))
      >>> gradient, _ = aggregator.update(jnp.eye(2), aggregator.init(jnp.zeros(2)))
      >>> print(np.asarray(gradient).round(3))
      [0.75 0.75]
    """
    if not c >= 0:
        raise ValueError(f"cagrad: c is {c}; it must be 0 or more.")

    def weights(gram, *, key, labeled):
        w = cagrad_weights(gram, key=key, labeled=labeled, c=c)
        return w / (1 + c**2) if divide else w

    return from_gram(weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


_MAX_CONFLICT = 1e-3
"""If -g_i . d exceeds this share of |g_i| sum_j |w_j| |g_j| for a task i, d = 0 is returned."""
_BALL_TOLERANCE = 1e-3
"""Relative error of |d - g_0|^2 that is accepted, to allow for rounding of the Gramian."""


def cagrad_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"], c: float = 0.5
) -> Float[Array, " t"]:
    """Returns the weights of the gradients in d."""
    mean = uniform_weights(labeled).astype(gram.dtype)
    if c == 0:
        return mean
    cosines, norms, nonzero = unit_gram(gram)
    active = labeled & nonzero
    largest = jnp.max(jnp.where(active, norms, 0.0), initial=0.0)
    relative_norms = jnp.where(active, norms / jnp.where(largest > 0, largest, 1.0), 1.0)
    # g_0 = sum_i mean_coefficients_i u_i for the unit gradients u_i, in units of the largest norm.
    mean_coefficients = jnp.where(active, mean * relative_norms, 0.0)
    # Coordinates in which the unit gradients are the rows of A = V L^(1/2), for their Gramian
    # C = V L V^T = A A^T. In them |d - g_0| is the norm of a vector, so that a component in the
    # null space of C cannot hide, and the coefficients of d - g_0 are bounded.
    eigenvalues, basis, significant = truncated_eigh(
        jnp.where(active[:, None] & active[None, :], cosines, 0.0)
    )
    roots = jnp.sqrt(eigenvalues)
    A = jnp.where(active[:, None] & significant[None, :], basis * roots[None, :], 0.0)
    g_0 = precise_dot(mean_coefficients, A)
    # Rounding can hide up to noise |x|^2 of the squared norm of a combination sum_i x_i u_i. What
    # it can hide of g_0 beyond the tolerance is subtracted from the squared radius, which stays 0
    # or more, and what it can hide of d - g_0 shortens d - g_0.
    noise = _bound_gram_noise(cosines)
    g_0_square = precise_dot(g_0, g_0)
    hidden = jnp.maximum(
        noise * precise_dot(mean_coefficients, mean_coefficients) - _BALL_TOLERANCE * g_0_square,
        0.0,
    )
    radius = jnp.sqrt(jnp.maximum(g_0_square - hidden, 0.0))
    g_0_norm = jnp.where(radius > 0, jnp.sqrt(g_0_square), 1.0)
    y = maximize_worst_gain(A, g_0 / g_0_norm, relative_norms, c, active)
    coefficients = precise_dot(basis, y / roots)
    largest_square = precise_dot(y, y) + noise * precise_dot(coefficients, coefficients)
    excess = largest_square / ((1 + _BALL_TOLERANCE) * c**2)
    coefficients = coefficients * jnp.minimum(1.0, jax.lax.rsqrt(jnp.maximum(excess, 1e-30)))
    weights = mean + jnp.where(active, radius * coefficients / relative_norms, 0.0)
    if c < 1:
        return weights
    # For c >= 1 the ball contains d = 0. It is better for every task than a short d that consists
    # of rounding errors, as between gradients whose norms differ by a factor of 10^12.
    d_coefficients = jnp.where(active, weights * relative_norms, 0.0)
    gains = jnp.where(active, precise_dot(cosines, d_coefficients), 0.0)
    conflict = jnp.min(gains) < -_MAX_CONFLICT * jnp.abs(d_coefficients).sum()
    return jnp.where(conflict, 0.0, weights)


def _bound_gram_noise(cosines: Float[Array, "t t"]) -> float:
    """Bounds the spectral norm of the rounding error in a Gramian of unit gradients.

    In float32 Gramians of 2 to 40 gradients of up to 10^7 parameters, errors of up to 8 (T = 2) and
    35 (T = 40) machine epsilons were measured.
    """
    return 4 * max(len(cosines), 8) * float(jnp.finfo(cosines.dtype).eps)
