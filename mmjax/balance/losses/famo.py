"""FAMO: weights under which all losses fall at the same relative rate."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mmjax.balance.base import Balancer
from mmjax.balance.losses.learned_weights import keep_unlabeled_entries
from mmjax.balance.losses.stateless import clip_to_positive, masked_softmax, order_by_task
from mmjax.types import Params


class FamoState(NamedTuple):
    """State of `famo`: one logit per task, their optimizer's state, lower bounds of the losses."""

    logits: Float[Array, " t"]
    opt_state: optax.OptState
    bounds: Float[Array, " t"]


def famo(
    learning_rate: float = 0.025, decay: float = 1e-3, bounds: Mapping[str, float] | None = None
) -> Balancer:
    """Weights the losses in proportion to softmax(logits) / (loss - bound), with sum 1.

    The logits follow the change of log(loss - bound) that the step caused on the SAME batch, which
    takes another forward pass: a task whose loss fell by more than the others loses weight.

    Args:
      learning_rate: learning rate of the logits, with Adam.
      decay: weight decay of the logits, added to their gradient.
      bounds: {task: lower bound of its loss}; 0 by default.

    Source: Liu et al., NeurIPS 2023 (arXiv:2306.03792), algorithm 2 in the appendix. Algorithm
    1 moves the logits by plain gradient descent; the accompanying code's decay is 1e-5.

    Example:
      Initially the weights are proportional to 1 / loss.

      >>> import jax
      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import famo
      >>> from mmjax.balance.pullback import pullback_from_jacobian
      >>> balancer = famo()
      >>> gradient, weights, state = balancer.update(
      ...     jnp.array([1.0, 4.0]),
      ...     pullback_from_jacobian({"x": jnp.eye(2)}, {"x": True}),
      ...     balancer.init(("a", "b"), {"x": jnp.zeros(2)}),
      ...     key=jax.random.key(0),
      ...     labeled=jnp.array([True, True]),
      ... )
      >>> print(np.asarray(weights).round(3))
      [0.8 0.2]
    """
    optimizer = optax.chain(optax.add_decayed_weights(decay), optax.adam(learning_rate))

    def init(tasks: Sequence[str], params: Params) -> FamoState:
        zeros = jnp.zeros(len(tasks))
        least = zeros if bounds is None else order_by_task("famo: bounds", bounds, tasks)
        return FamoState(zeros, optimizer.init(zeros), least)

    def update(losses, pullback, state, *, key, labeled):
        # The gradient of sum_t z_t log(L_t - b_t) weighs tasks by z_t / (L_t - b_t).
        w = masked_softmax(state.logits - jnp.log(clip_to_positive(losses - state.bounds)), labeled)
        return pullback(w), w, state

    def after(state, before, after, *, labeled):
        fall = jnp.log(clip_to_positive(before - state.bounds)) - jnp.log(
            clip_to_positive(after - state.bounds)
        )
        z = masked_softmax(state.logits, labeled)
        # The Jacobian of the softmax z, times the fall of the log losses.
        gradient = z * (fall - jnp.where(labeled, z * fall, 0).sum())
        # Descending along it lowers the logits of the tasks that improved more than the average.
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.logits)
        new = FamoState(state.logits + updates, opt_state, state.bounds)
        return keep_unlabeled_entries(new, state, labeled)

    return Balancer(init, update, after)
