"""Weightings that follow from the losses of the step alone: one backward pass, no memory."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.balance.base import Balancer, State, from_losses
from mmjax.types import Params

FLOOR = 1e-12
"""Methods that take a loss's logarithm or divide by it count smaller losses as this one."""


def equal() -> Balancer:
    """The plain sum of the losses."""
    return from_losses(lambda losses, *, key, labeled: jnp.ones_like(losses))


def static(weights: Mapping[str, float]) -> Balancer:
    """Fixed weights.

    Args:
      weights: {task: weight}, one for every task, none negative.

    Raises:
      ValueError: if a weight is negative, or a task has none.
    """
    negative = {t: w for t, w in weights.items() if not w >= 0}
    if negative:
        raise ValueError(f"static: the weights {negative} must be 0 or more.")

    def init(tasks: Sequence[str], params: Params) -> State:
        return by_task("static: there are weights", weights, tasks)

    def update(losses, pullback, state, *, key, labeled):
        return pullback(state), state, state

    return Balancer(init, update)


def geometric() -> Balancer:
    """The geometric mean of the labelled tasks' losses, which must be positive.

    Source: Chennupati et al., CVPR workshops 2019 (arXiv:1904.08492), "geometric loss strategy".
    """

    def weights(losses, *, key, labeled):
        logs, count = jnp.log(positive(losses)), jnp.maximum(labeled.sum(), 1)
        mean = jnp.where(labeled, logs, 0).sum() / count
        return jnp.where(labeled, jnp.exp(mean - logs) / count, 0)

    return from_losses(weights)


def scale_invariant() -> Balancer:
    """The sum of the losses' logarithms: no task's scale matters. They must be positive.

    Source: the logarithmic transformation of Navon et al., ICML 2022 (arXiv:2202.01017), section 5,
    where it is called "scale-invariant".
    """

    def weights(losses, *, key, labeled):
        return jnp.where(labeled, 1 / positive(losses), 0)

    return from_losses(weights)


def positive(losses: Float[Array, " t"]) -> Float[Array, " t"]:
    """The losses in float32, none below `FLOOR`, ready for a logarithm or a division."""
    return jnp.maximum(losses.astype(jnp.float32), FLOOR)


def shares(logits: Float[Array, " t"], labeled: Bool[Array, " t"]) -> Float[Array, " t"]:
    """Softmax over the labelled tasks; 0 for the others."""
    return jnp.where(labeled, jax.nn.softmax(jnp.where(labeled, logits, -jnp.inf)), 0)


def by_task(what: str, values: Mapping[str, float], tasks: Sequence[str]) -> Float[Array, " t"]:
    """The values in the order of the tasks.

    Raises:
      ValueError: if a task has no value or a value no task; it begins with `what`.
    """
    if set(values) != set(tasks):
        raise ValueError(
            f"{what} for {sorted(values)}, but the tasks are {sorted(tasks)}; give one a task."
        )
    return jnp.array([values[t] for t in tasks], jnp.float32)
