"""GradNorm: weights learned so that all tasks train at a similar rate."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from mmjax.balance.base import Balancer, Wrt
from mmjax.balance.from_functions import from_stateful_gram
from mmjax.balance.losses.learned_weights import keep_unlabeled_entries
from mmjax.types import Params

MIN_WEIGHT = 1e-4
"""The smallest weight, so that an overshooting step cannot make a weight negative for good."""


class GradNormState(NamedTuple):
    """State of `gradnorm`: per task its weight and first positive loss; the optimizer's state."""

    weights: Float[Array, " t"]
    initial: Float[Array, " t"]
    opt_state: optax.OptState


def gradnorm(
    alpha: float = 1.5,
    optimizer: optax.GradientTransformation | None = None,
    *,
    wrt: Wrt = "params",
    weigh_heads: bool = True,
    rescale: bool = False,
) -> Balancer:
    """Learns weights that give tasks that train slowly longer gradients.

    The weights descend sum_t |w_t n_t - mean(w n) r_t^alpha|, where n are the norms of the
    gradients and r the relative losses: each loss over its initial value, divided by the mean of
    these ratios. The target, mean(w n) r^alpha, counts as constant. Then the weights are scaled to
    sum to T.

    A task's initial loss is its first positive one; until then its relative loss is 1. A task
    without labels keeps its weight, and so does the sum of the others.

    Args:
      alpha: how strongly tasks that lag are accelerated; 0 makes all norms equal.
      optimizer: what learns the weights; by default `optax.adam(0.025)`.
      wrt: see `from_gram`. The paper takes the kernel of the last shared layer, such as
        ("sharing/*/kernel",), which saves the backward pass below it.
      weigh_heads: see `from_gram`; true by default, since the method weighs losses.
      rescale: see `from_gram`.

    Source: Chen et al., ICML 2018 (arXiv:1711.02257), algorithm 1.

    Example:
      One step of size 0.1: the longer gradient loses weight, by 0.1 times its length, the shorter
      gains; from (0.7, 1.1) they are scaled to sum to 2.

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> import optax
      >>> from mmjax.balance import gradnorm, to_aggregator
      >>> aggregator = to_aggregator(gradnorm(optimizer=optax.sgd(0.1)), ("a", "b"))
      >>> gradients = jnp.array([[3.0, 0.0], [0.0, 1.0]])
      >>> _, state = aggregator.update(gradients, aggregator.init(jnp.zeros(2)))
      >>> print(np.asarray(state.balancer.weights).round(3))
      [0.778 1.222]
    """
    optimizer = optimizer or optax.adam(0.025)

    def init(tasks: Sequence[str], params: Params) -> GradNormState:
        ones = jnp.ones(len(tasks), jnp.float32)
        return GradNormState(ones, jnp.zeros_like(ones), optimizer.init(ones))

    def weights(gram, losses, state, *, key, labeled):
        losses = losses.astype(jnp.float32)
        initial = jnp.where(labeled & (state.initial <= 0), losses, state.initial)
        norms = jnp.sqrt(jnp.maximum(jnp.diag(gram), 0.0))
        gradient = _weight_gradient(
            state.weights, norms, _relative_losses(losses, initial, labeled) ** alpha, labeled
        )
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.weights)
        new = GradNormState(_move_weights(state.weights, updates, labeled), initial, opt_state)
        return state.weights, keep_unlabeled_entries(new, state, labeled)

    return from_stateful_gram(init, weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


def _move_weights(
    weights: Float[Array, " t"], updates: Float[Array, " t"], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Adds the updates and scales the labeled tasks' weights to their sum before; 0 for others."""
    moved = jnp.where(labeled, jnp.maximum(weights + updates, MIN_WEIGHT), 0.0)
    total = jnp.where(labeled, weights, 0.0).sum()
    return moved * (total / jnp.where(labeled.any(), moved.sum(), 1.0))


def _relative_losses(
    losses: Float[Array, " t"], initial: Float[Array, " t"], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Divides each loss by its initial value, and by the mean of that over the labeled tasks."""
    # The paper's inverse training rates, r_t = (L_t / L_t(0)) / mean_s (L_s / L_s(0)).
    known = labeled & (initial > 0)
    ratios = jnp.where(known, jnp.maximum(losses, 0) / jnp.where(known, initial, 1.0), 0.0)
    mean = ratios.sum() / jnp.maximum(known.sum(), 1)
    return jnp.where(known & (mean > 0), ratios / jnp.where(mean > 0, mean, 1.0), 1.0)


def _weight_gradient(
    weights: Float[Array, " t"],
    norms: Float[Array, " t"],
    rates: Float[Array, " t"],
    labeled: Bool[Array, " t"],
) -> Float[Array, " t"]:
    """Differentiates the objective with respect to the weights; 0 for tasks without labels."""
    # Equation 2 of the paper: L_grad = sum_t |G_t - mean(G) r_t^alpha| with G_t = w_t n_t.
    lengths = jnp.where(labeled, weights * norms, 0.0)
    target = lengths.sum() / jnp.maximum(labeled.sum(), 1) * rates
    # The derivative of |w n - target| with the target constant.
    return jnp.where(labeled, jnp.sign(lengths - target) * norms, 0.0)
