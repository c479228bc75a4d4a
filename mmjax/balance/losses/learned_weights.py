"""Weights that are learned alongside the model, by descending an objective of their own."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from mmjax.balance.base import Balancer
from mmjax.types import Params

_MAX_LOG = 30.0
"""Bound of |s|, so that a loss that stays 0 does not drive its weight to infinity."""


class LearnedState(NamedTuple):
    """State of `uncertainty` and `imtl_l`: one logarithm `s` per task, their optimizer's state."""

    s: Float[Array, " t"]
    opt_state: optax.OptState


def uncertainty(
    optimizer: optax.GradientTransformation | None = None, log_variance: float = 0.0
) -> Balancer:
    """Weights the losses by exp(-s) / 2, where the log variance s minimizes (exp(-s) loss + s) / 2.

    The log variance of a task without labels in the batch does not change.

    Args:
      optimizer: the optimizer of s; by default `optax.adam(1e-3)`.
      log_variance: initial value of every s.

    Source: Kendall, Gal, Cipolla, CVPR 2018 (arXiv:1705.07115). The paper gives 1 / (2 sigma^2) to
    regression and 1 / sigma^2 to classification; as in its successors all tasks have the first.

    Example:
      >>> import jax.numpy as jnp
      >>> from mmjax.balance import to_aggregator, uncertainty
      >>> aggregator = to_aggregator(uncertainty(), ("a", "b"))
      >>> print(aggregator.update(jnp.eye(2), aggregator.init(jnp.zeros(2)))[0])
      [0.5 0.5]
    """
    return _learn_weights(
        # The objective is sum_t exp(-s_t) L_t / 2 + s_t / 2 with s = log sigma^2. Its derivative
        # with respect to the losses is the weight w = exp(-s) / 2, and with respect to s it is 1/2
        # - w L.
        lambda s: 0.5 * jnp.exp(-s),
        lambda w, losses: 0.5 - w * losses,
        optimizer,
        log_variance,
    )


def imtl_l(
    optimizer: optax.GradientTransformation | None = None, log_scale: float = 0.0
) -> Balancer:
    """Weights the losses by exp(s), where s minimizes exp(s) loss - s: weighted losses become 1.

    The log scale s of a task without labels in the batch does not change.

    Args:
      optimizer: the optimizer of s; by default `optax.adam(1e-3)`.
      log_scale: initial value of every s.

    Source: Liu et al., ICLR 2021, "Towards impartial multi-task learning".

    Example:
      A gradient step of 1 moves s by 1 - loss, here to 0 and 0.5.

      >>> import jax.numpy as jnp
      >>> import optax
      >>> from mmjax.balance import imtl_l, to_aggregator
      >>> aggregator = to_aggregator(imtl_l(optax.sgd(1.0)), ("a", "b"))
      >>> state = aggregator.init(jnp.zeros(2))
      >>> weights, state = aggregator.update(jnp.eye(2), state, losses=jnp.array([1.0, 0.5]))
      >>> print(weights, state.balancer.s)
      [1. 1.] [0.  0.5]
    """
    # The objective is sum_t exp(s_t) L_t - s_t, with the weight w = exp(s) and the slope w L - 1.
    return _learn_weights(jnp.exp, lambda w, losses: w * losses - 1, optimizer, log_scale)


def _learn_weights(
    weights: Callable[..., Float[Array, " t"]],
    slope: Callable[..., Float[Array, " t"]],
    optimizer: optax.GradientTransformation | None,
    start: float,
) -> Balancer:
    """Lifts weights(s) to a balancer; slope(weights, losses) is the derivative of s's objective."""
    optimizer = optimizer or optax.adam(1e-3)

    def init(tasks: Sequence[str], params: Params) -> LearnedState:
        s = jnp.full(len(tasks), start, jnp.float32)
        return LearnedState(s, optimizer.init(s))

    def update(losses, pullback, state, *, key, labeled):
        s, opt_state = state
        w = weights(s)
        gradient = jnp.where(labeled, slope(w, losses.astype(jnp.float32)), 0)
        updates, new = optimizer.update(gradient, opt_state, s)
        moved = LearnedState(jnp.clip(s + updates, -_MAX_LOG, _MAX_LOG), new)
        return pullback(w), w, keep_unlabeled_entries(moved, state, labeled)

    return Balancer(init, update)


def keep_unlabeled_entries(
    new: PyTree[Array], old: PyTree[Array], labeled: Bool[Array, " t"]
) -> PyTree[Array]:
    """Returns the new state, but with the old entries of unlabeled tasks in arrays of shape [t]."""
    return jax.tree.map(
        lambda n, o: jnp.where(labeled, n, o) if n.shape == labeled.shape else n, new, old
    )
