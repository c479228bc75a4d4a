"""Weights by how fast the losses fall."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.balance.base import Balancer
from mmjax.balance.losses.stateless import positive, shares
from mmjax.types import Params


class DwaState(NamedTuple):
    """State of `dwa`.

    Attributes:
      step: steps in the current period.
      total: each task's losses, summed over the period's steps in which it had labels.
      steps: the number of those steps.
      last: its mean loss in its last period.
      before: that in the period before; equal to `last` while there is none.
      seen: whether it had a label in any finished period.
    """

    step: Int[Array, ""]
    total: Float[Array, " t"]
    steps: Float[Array, " t"]
    last: Float[Array, " t"]
    before: Float[Array, " t"]
    seen: Bool[Array, " t"]


def dwa(temperature: float = 2.0, steps: int = 100) -> Balancer:
    """Weights T softmax(r / temperature), with r the ratio of a task's last two mean losses.

    A task whose loss falls slowly has a large ratio. In the first two periods all weights are 1. A
    task without any label in a period keeps its ratio.

    Args:
      temperature: the higher, the more equal the weights.
      steps: length of a period. The paper's is an epoch, which a balancer does not know of: give
        the number of steps of an epoch to have the paper's rule.

    Raises:
      ValueError: if either is not positive.

    Source: Liu, Johns, Davison, CVPR 2019 (arXiv:1803.10704), "dynamic weight average".
    """
    if temperature <= 0 or steps < 1:
        raise ValueError(f"dwa: temperature={temperature} and steps={steps} must be positive.")

    def init(tasks: Sequence[str], params: Params) -> DwaState:
        zeros, ones = jnp.zeros(len(tasks)), jnp.ones(len(tasks))
        return DwaState(jnp.zeros((), jnp.int32), zeros, zeros, ones, ones, zeros > 0)

    def update(losses, pullback, state, *, key, labeled):
        ratio = positive(state.last) / positive(state.before)
        w = shares(ratio / temperature, labeled) * labeled.sum()
        return pullback(w), w, advance(state, losses, labeled, steps)

    return Balancer(init, update)


def advance(
    state: DwaState, losses: Float[Array, " t"], labeled: Bool[Array, " t"], steps: int
) -> DwaState:
    """The state with one step's losses; after the period's last step, with its means."""
    total = state.total + jnp.where(labeled, losses, 0).astype(jnp.float32)
    count = state.steps + labeled
    mean = total / jnp.maximum(count, 1)
    end = state.step + 1 == steps
    ended = end & (count > 0)
    return DwaState(
        step=jnp.where(end, 0, state.step + 1),
        total=jnp.where(end, 0, total),
        steps=jnp.where(end, 0, count),
        last=jnp.where(ended, mean, state.last),
        before=jnp.where(ended, jnp.where(state.seen, state.last, mean), state.before),
        seen=state.seen | ended,
    )
