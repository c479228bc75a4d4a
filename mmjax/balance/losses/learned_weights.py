"""Weights that are learned beside the model, by descending an objective of their own."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from mmjax.balance.base import Balancer
from mmjax.types import Params

LIMIT = 30.0
"""How far a logarithm may go, lest a loss that stays 0 should drive its weight to infinity."""


class LearnedState(NamedTuple):
    """State of `uncertainty` and `imtl_l`: a logarithm `s` a task, and its optimizer's state."""

    s: Float[Array, " t"]
    opt_state: optax.OptState


def uncertainty(
    optimizer: optax.GradientTransformation | None = None, log_variance: float = 0.0
) -> Balancer:
    """Weights exp(-s) / 2 with log variances s learned by minimising exp(-s) loss / 2 + s / 2.

    The log variance of a task that has no label in the batch stays as it is.

    Args:
      optimizer: what learns s; by default `optax.adam(1e-3)`.
      log_variance: where every s starts.

    Source: Kendall, Gal, Cipolla, CVPR 2018 (arXiv:1705.07115). The paper gives 1 / (2 sigma^2) to
    regression and 1 / sigma^2 to classification; as in its successors all tasks have the first.
    """
    return learned(
        lambda s: 0.5 * jnp.exp(-s), lambda w, losses: 0.5 - w * losses, optimizer, log_variance
    )


def imtl_l(
    optimizer: optax.GradientTransformation | None = None, log_scale: float = 0.0
) -> Balancer:
    """Weights exp(s) with scales s learned by minimising exp(s) loss - s: all losses become 1.

    The scale of a task that has no label in the batch stays as it is.

    Args:
      optimizer: what learns s; by default `optax.adam(1e-3)`.
      log_scale: where every s starts.

    Source: Liu et al., ICLR 2021, "Towards impartial multi-task learning".
    """
    return learned(jnp.exp, lambda w, losses: w * losses - 1, optimizer, log_scale)


def learned(
    weights: Callable[..., Float[Array, " t"]],
    slope: Callable[..., Float[Array, " t"]],
    optimizer: optax.GradientTransformation | None,
    start: float,
) -> Balancer:
    """Weights(s), with s moved along slope(weights, losses), the derivative of its objective."""
    optimizer = optimizer or optax.adam(1e-3)

    def init(tasks: Sequence[str], params: Params) -> LearnedState:
        s = jnp.full(len(tasks), start, jnp.float32)
        return LearnedState(s, optimizer.init(s))

    def update(losses, pullback, state, *, key, labeled):
        s, opt_state = state
        w = weights(s)
        gradient = jnp.where(labeled, slope(w, losses.astype(jnp.float32)), 0)
        updates, new = optimizer.update(gradient, opt_state, s)
        moved = LearnedState(jnp.clip(s + updates, -LIMIT, LIMIT), new)
        return pullback(w), w, keep_unlabeled(moved, state, labeled)

    return Balancer(init, update)


def keep_unlabeled(
    new: PyTree[Array], old: PyTree[Array], labeled: Bool[Array, " t"]
) -> PyTree[Array]:
    """The new state, with the old entries of tasks without labels in arrays of one entry a task."""
    return jax.tree.map(
        lambda n, o: jnp.where(labeled, n, o) if n.shape == labeled.shape else n, new, old
    )
