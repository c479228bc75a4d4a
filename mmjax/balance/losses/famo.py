"""Weights under which all losses fall at the same relative rate."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mmjax.balance.base import Balancer
from mmjax.balance.losses.learned_weights import keep_unlabeled
from mmjax.balance.losses.stateless import by_task, positive, shares
from mmjax.types import Params


class FamoState(NamedTuple):
    """State of `famo`: a logit a task, its optimizer's state, the losses' lower bounds."""

    logits: Float[Array, " t"]
    opt_state: optax.OptState
    bounds: Float[Array, " t"]


def famo(
    learning_rate: float = 0.025, decay: float = 1e-3, bounds: Mapping[str, float] | None = None
) -> Balancer:
    """Weights in proportion to softmax(logits) / (loss - bound), which sum to 1.

    The logits move by the change of log(loss - bound) that the step made on the SAME batch, which
    takes another forward pass: a task that fell by more than the others loses weight.

    Args:
      learning_rate: of the logits, by Adam.
      decay: pull of the logits to 0, added to their gradient.
      bounds: {task: lower bound of its loss}; 0 by default.

    Source: Liu et al., NeurIPS 2023 (arXiv:2306.03792), algorithm 2 in the appendix. Algorithm
    1 moves the logits by plain gradient descent; the accompanying code's decay is 1e-5.
    """
    optimizer = optax.chain(optax.add_decayed_weights(decay), optax.adam(learning_rate))

    def init(tasks: Sequence[str], params: Params) -> FamoState:
        zeros = jnp.zeros(len(tasks))
        least = zeros if bounds is None else by_task("famo: there are bounds", bounds, tasks)
        return FamoState(zeros, optimizer.init(zeros), least)

    def update(losses, pullback, state, *, key, labeled):
        w = shares(state.logits - jnp.log(positive(losses - state.bounds)), labeled)
        return pullback(w), w, state

    def after(state, before, after, *, labeled):
        fall = jnp.log(positive(before - state.bounds)) - jnp.log(positive(after - state.bounds))
        z = shares(state.logits, labeled)
        gradient = z * (fall - jnp.where(labeled, z * fall, 0).sum())
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.logits)
        new = FamoState(state.logits + updates, opt_state, state.bounds)
        return keep_unlabeled(new, state, labeled)

    return Balancer(init, update, after)
