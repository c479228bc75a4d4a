"""DWA: weights that depend on how fast the losses fall."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.balance.base import Balancer
from mmjax.balance.losses.stateless import clip_to_positive, masked_softmax
from mmjax.types import Params


class DwaState(NamedTuple):
    """State of `dwa`.

    Attributes:
      step: number of completed steps of the current period.
      total: sum of each task's losses over the steps of the period in which it had labels.
      steps: number of those steps.
      last: each task's mean loss in its last period with labels.
      before: its mean loss in the period before that; equal to `last` if there is none.
      seen: whether the task had a label in any completed period.
    """

    step: Int[Array, ""]
    total: Float[Array, " t"]
    steps: Float[Array, " t"]
    last: Float[Array, " t"]
    before: Float[Array, " t"]
    seen: Bool[Array, " t"]


def dwa(temperature: float = 2.0, steps: int = 100) -> Balancer:
    """Weights losses by T softmax(r / temperature), r the ratio of a task's last two mean losses.

    A task whose loss falls slowly has a large ratio. In the first two periods all weights are 1. A
    task without any label in a period keeps its ratio.

    Args:
      temperature: the higher, the more equal the weights.
      steps: length of a period. In the paper it is an epoch, which a balancer cannot see; for the
        paper's rule give the number of steps per epoch.

    Raises:
      ValueError: if either is not positive.

    Source: Liu, Johns, Davison, CVPR 2019 (arXiv:1803.10704), "dynamic weight average".

    Example:
      With periods of one step, losses that fall at the same rate keep equal weights.

      >>> import jax.numpy as jnp
      >>> from mmjax.balance import dwa, to_aggregator
      >>> aggregator = to_aggregator(dwa(steps=1), ("a", "b"))
      >>> state = aggregator.init(jnp.zeros(2))
      >>> for scale in (1.0, 0.5, 0.25):
      ...     losses = scale * jnp.array([1.0, 9.0])
      ...     weights, state = aggregator.update(jnp.eye(2), state, losses=losses)
      >>> print(weights)
      [1. 1.]
    """
    if temperature <= 0 or steps < 1:
        raise ValueError(f"dwa: temperature={temperature} and steps={steps} must be positive.")

    def init(tasks: Sequence[str], params: Params) -> DwaState:
        zeros, ones = jnp.zeros(len(tasks)), jnp.ones(len(tasks))
        return DwaState(jnp.zeros((), jnp.int32), zeros, zeros, ones, ones, zeros > 0)

    def update(losses, pullback, state, *, key, labeled):
        # w_t = T softmax_t(r_t / temperature), with the rate of descent
        # r_t = L_t(k - 1) / L_t(k - 2) of the mean losses of the last two periods.
        ratio = clip_to_positive(state.last) / clip_to_positive(state.before)
        w = masked_softmax(ratio / temperature, labeled) * labeled.sum()
        return pullback(w), w, _advance_period(state, losses, labeled, steps)

    return Balancer(init, update)


def _advance_period(
    state: DwaState, losses: Float[Array, " t"], labeled: Bool[Array, " t"], steps: int
) -> DwaState:
    """Adds the losses of one step to the state; the last step of a period stores the means."""
    total = state.total + jnp.where(labeled, losses, 0).astype(jnp.float32)
    count = state.steps + labeled
    mean = total / jnp.maximum(count, 1)
    end = state.step + 1 == steps
    # A period in which a task had no label leaves its means as they are.
    ended = end & (count > 0)
    return DwaState(
        # The sums start anew in every period.
        step=jnp.where(end, 0, state.step + 1),
        total=jnp.where(end, 0, total),
        steps=jnp.where(end, 0, count),
        last=jnp.where(ended, mean, state.last),
        # After the first period there is no earlier mean; the rate r_t is then 1.
        before=jnp.where(ended, jnp.where(state.seen, state.last, mean), state.before),
        seen=state.seen | ended,
    )
