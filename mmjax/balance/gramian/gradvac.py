"""GradVac: gradients are turned toward each other, up to the cosines that they usually have."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.balance.base import Balancer, Wrt, from_stateful_gram
from mmjax.balance.gramian.pcgrad import random_orders
from mmjax.balance.solvers.convex import unit_gram
from mmjax.kernels.linear_algebra import dot
from mmjax.types import Params

LIMIT = 1 - 1e-6
"""The largest target: to reach a cosine of 1 would take an infinite share of the other gradient."""


def gradvac(
    beta: float = 0.01,
    *,
    wrt: Wrt = "params",
    weigh_heads: bool = False,
    rescale: bool = False,
) -> Balancer:
    """Each gradient, in random order, is turned to at least a target cosine with the others.

    The target of a pair is the running mean of the cosines that were found, from 0 on; the first
    step is PCGrad's. Its state are the targets [t t]; those of an unlabelled task stay.

    Args:
      beta: weight of the newest cosine in the running mean.
      wrt: see `from_gram`.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Source: Wang et al., ICLR 2021 (arXiv:2010.05874), algorithm 1. The paper can keep targets a
    layer; here they are for all that `wrt` names. As in the paper a running mean takes every
    cosine; some implementations take those that led to a correction only, with beta = 0.5.
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
    """(weights of the tasks' gradients in the sum of the turned gradients, new targets)."""
    t = len(gram)
    unit, norms, nonzero = unit_gram(gram)
    orders = random_orders(key, t)
    turned, targets = jax.vmap(partial(turn, unit, nonzero, beta))(jnp.arange(t), targets, orders)
    # Row i holds coefficients of unit gradients, and is as many times too small as g_i is long.
    return dot(jnp.where(nonzero, norms, 0.0), turned) / norms, targets


def turn(
    unit: Float[Array, "t t"],
    nonzero: Bool[Array, " t"],
    beta: float,
    i: Int[Array, ""],
    targets: Float[Array, " t"],
    order: Int[Array, " t"],
) -> tuple[Float[Array, " t"], Float[Array, " t"]]:
    """Turns unit gradient i toward the others: (coefficients of the unit gradients, targets)."""

    def toward(carry, j):
        c, inner, targets = carry  # coefficients, inner products with all unit gradients
        square = dot(c, inner)
        # What is left of a gradient that another cancels is round-off and has no direction.
        possible = nonzero[i] & nonzero[j] & (i != j) & (square > 1e-6 * jnp.abs(c).sum() ** 2)
        norm = jnp.sqrt(jnp.where(possible, square, 1.0))
        cosine = jnp.clip(inner[j] / norm, -1, 1)
        target = jnp.minimum(targets[j], LIMIT)
        sine, target_sine = sine_of(cosine), jnp.sqrt(jnp.maximum(1 - target**2, 1e-6))
        step = norm * (target * sine / target_sine - cosine)
        step = jnp.where(possible & (cosine < target), step, 0.0)
        mean = jnp.where(possible, (1 - beta) * targets[j] + beta * cosine, targets[j])
        return (c.at[j].add(step), inner + step * unit[j], targets.at[j].set(mean)), None

    start = (jnp.eye(len(unit), dtype=unit.dtype)[i], unit[i], targets)
    (c, _, targets), _ = jax.lax.scan(toward, start, order)
    return c, targets


def sine_of(cosine: Float[Array, ""]) -> Float[Array, ""]:
    """The sine; 0 for vectors that are parallel up to round-off, of which it would be the root."""
    square = 1 - cosine**2
    return jnp.sqrt(jnp.where(square > 1e-6, square, 0.0))
