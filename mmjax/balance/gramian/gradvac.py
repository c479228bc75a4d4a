"""GradVac: gradients are turned toward each other, up to their average cosines."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.balance.base import Balancer, Wrt
from mmjax.balance.from_functions import from_stateful_gram
from mmjax.balance.gramian.pcgrad import draw_task_orders
from mmjax.balance.solvers.convex import unit_gram
from mmjax.kernels.linear_algebra import precise_dot
from mmjax.types import Params

_MAX_TARGET = 1 - 1e-6
"""The largest target: a cosine of 1 takes an infinite multiple of the other gradient."""


def gradvac(
    beta: float = 0.01,
    *,
    wrt: Wrt = "params",
    weigh_heads: bool = False,
    rescale: bool = False,
) -> Balancer:
    """Turns each gradient to at least a target cosine with the others, in random order.

    The target of a pair is the running mean of its cosines, starting at 0, so that the first step
    equals that of PCGrad. The state holds the targets [t t]; those of an unlabeled task stay.

    Args:
      beta: weight of the newest cosine in the running mean.
      wrt: see `from_gram`.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Source: Wang et al., ICLR 2021 (arXiv:2010.05874), algorithm 1. The paper can have targets per
    layer; here they are for everything that `wrt` covers. As in the paper the running mean includes
    every cosine; some implementations include only those that led to a correction, with beta = 0.5.

    Example:
      The first step removes the conflict: (1, 0) becomes (0.5, 0.5), and (-1, 1) becomes (0, 1).

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import gradvac, to_aggregator
      >>> aggregator = to_aggregator(gradvac(), ("a", "b"))
      >>> gradients = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
      >>> print(np.asarray(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0]).round(3))
      [0.5 1.5]
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"gradvac: beta is {beta}; it must be between 0 and 1.")

    def init(tasks: Sequence[str], params: Params) -> Float[Array, "t t"]:
        return jnp.zeros((len(tasks), len(tasks)), jnp.float32)

    def weights(gram, losses, state, *, key, labeled):
        return gradvac_weights(gram, state, key=key, labeled=labeled, beta=beta)

    return from_stateful_gram(init, weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


def gradvac_weights(
    gram: Float[Array, "t t"],
    targets: Float[Array, "t t"],
    *,
    key: Key[Array, ""],
    labeled: Bool[Array, " t"],
    beta: float = 0.01,
) -> tuple[Float[Array, " t"], Float[Array, "t t"]]:
    """Returns (weights of the tasks' gradients in the sum of the turned gradients, new targets)."""
    t = len(gram)
    cosines, norms, nonzero = unit_gram(gram)
    orders = draw_task_orders(key, t)
    turned, targets = jax.vmap(partial(_turn_gradient, cosines, nonzero, beta))(
        jnp.arange(t), targets, orders
    )
    # Row i holds the coefficients of the unit gradients in the turned g_i / |g_i|.
    return precise_dot(jnp.where(nonzero, norms, 0.0), turned) / norms, targets


def _turn_gradient(
    cosines: Float[Array, "t t"],
    nonzero: Bool[Array, " t"],
    beta: float,
    i: Int[Array, ""],
    targets: Float[Array, " t"],
    order: Int[Array, " t"],
) -> tuple[Float[Array, " t"], Float[Array, " t"]]:
    """Turns unit gradient i toward the others: (coefficients of the unit gradients, targets).

    For the turned gradient g and the unit gradient u_j with cosine phi below the target phi_T, the
    a that gives g + a u_j the cosine phi_T with u_j is (equation 3 of the paper, |u_j| = 1)

        a = |g| (phi_T sqrt(1 - phi^2) - phi sqrt(1 - phi_T^2)) / sqrt(1 - phi_T^2)
    """

    def turn_toward(carry, j):
        # c: coefficients of g in the unit gradients; inner: its inner products with them.
        c, inner, targets = carry
        # |g|^2 = c^T C c for g = sum_i c_i u_i, and g . u_j = (C c)_j.
        square = precise_dot(c, inner)
        # What remains of a gradient that another cancels is rounding errors without a direction.
        possible = nonzero[i] & nonzero[j] & (i != j) & (square > 1e-6 * jnp.abs(c).sum() ** 2)
        norm = jnp.sqrt(jnp.where(possible, square, 1.0))
        cosine = jnp.clip(inner[j] / norm, -1, 1)
        target = jnp.minimum(targets[j], _MAX_TARGET)
        sine, target_sine = _sine(cosine), jnp.sqrt(jnp.maximum(1 - target**2, 1e-6))
        # Equation 3 of the paper with |u_j| = 1, divided through by the sine of the target angle.
        step = norm * (target * sine / target_sine - cosine)
        step = jnp.where(possible & (cosine < target), step, 0.0)
        # The running mean phi_T <- (1 - beta) phi_T + beta phi, whether or not g turned.
        mean = jnp.where(possible, (1 - beta) * targets[j] + beta * cosine, targets[j])
        # g + a u_j has the coefficient c_j + a, and its inner products change by a C_j.
        return (c.at[j].add(step), inner + step * cosines[j], targets.at[j].set(mean)), None

    start = (jnp.eye(len(cosines), dtype=cosines.dtype)[i], cosines[i], targets)
    (c, _, targets), _ = jax.lax.scan(turn_toward, start, order)
    return c, targets


def _sine(cosine: Float[Array, ""]) -> Float[Array, ""]:
    """Returns the sine; 0 if it is below 1/1000, where rounding errors dominate."""
    square = 1 - cosine**2
    return jnp.sqrt(jnp.where(square > 1e-6, square, 0.0))
