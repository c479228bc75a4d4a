"""Weightings that depend only on the losses of the current step, or on nothing."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.balance.base import Balancer, State
from mmjax.balance.from_functions import from_losses
from mmjax.types import Params

MIN_LOSS = 1e-12
"""Methods that take the logarithm of a loss or divide by it clip smaller losses to this."""


def equal() -> Balancer:
    """Sums the losses: all weights are 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from mmjax.balance import equal, to_aggregator
      >>> aggregator = to_aggregator(equal(), ("a", "b"))
      >>> gradients = jnp.array([[1.0, 2.0], [3.0, 4.0]])
      >>> print(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0])
      [4. 6.]
    """
    return from_losses(lambda losses, *, key, labeled: jnp.ones_like(losses))


def static(weights: Mapping[str, float]) -> Balancer:
    """Weights the losses by constants.

    Args:
      weights: {task: weight}, one for every task, none negative.

    Raises:
      ValueError: if a weight is negative, or if the names are not those of the tasks.

    Example:
      >>> import jax.numpy as jnp
      >>> from mmjax.balance import static, to_aggregator
      >>> aggregator = to_aggregator(static({"a": 1.0, "b": 0.5}), ("a", "b"))
      >>> print(aggregator.update(jnp.eye(2), aggregator.init(jnp.zeros(2)))[0])
      [1.  0.5]
    """
    negative = {t: w for t, w in weights.items() if not w >= 0}
    if negative:
        raise ValueError(f"static: the weights {negative} must be 0 or more.")

    def init(tasks: Sequence[str], params: Params) -> State:
        return order_by_task("static: weights", weights, tasks)

    def update(losses, pullback, state, *, key, labeled):
        return pullback(state), state, state

    return Balancer(init, update)


def geometric() -> Balancer:
    """Minimizes the geometric mean of the labeled tasks' losses, which must be positive.

    Source: Chennupati et al., CVPR workshops 2019 (arXiv:1904.08492), "geometric loss strategy".

    Example:
      The derivative of the mean m = 2 by a loss is m / (2 loss).

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import geometric, to_aggregator
      >>> aggregator = to_aggregator(geometric(), ("a", "b"))
      >>> state = aggregator.init(jnp.zeros(2))
      >>> gradient, _ = aggregator.update(jnp.eye(2), state, losses=jnp.array([1.0, 4.0]))
      >>> print(np.asarray(gradient).round(3))
      [1.   0.25]
    """

    def weights(losses, *, key, labeled):
        # The gradient of the geometric mean M = (prod_t L_t)^(1/n) is sum_t M / (n L_t) grad L_t.
        logs, count = jnp.log(clip_to_positive(losses)), jnp.maximum(labeled.sum(), 1)
        mean = jnp.where(labeled, logs, 0).sum() / count
        return jnp.where(labeled, jnp.exp(mean - logs) / count, 0)

    return from_losses(weights)


def scale_invariant() -> Balancer:
    """Minimizes the sum of the logarithms of the losses, which must be positive, at any scale.

    Source: the logarithmic transformation of Navon et al., ICML 2022 (arXiv:2202.01017), section 5,
    where it is called "scale-invariant".

    Example:
      >>> import jax.numpy as jnp
      >>> from mmjax.balance import scale_invariant, to_aggregator
      >>> aggregator = to_aggregator(scale_invariant(), ("a", "b"))
      >>> state = aggregator.init(jnp.zeros(2))
      >>> print(aggregator.update(jnp.eye(2), state, losses=jnp.array([2.0, 4.0]))[0])
      [0.5  0.25]
    """

    def weights(losses, *, key, labeled):
        # The gradient of sum_t log L_t, which does not change if a loss is multiplied by a
        # constant.
        return jnp.where(labeled, 1 / clip_to_positive(losses), 0)

    return from_losses(weights)


def clip_to_positive(losses: Float[Array, " t"]) -> Float[Array, " t"]:
    """Clips the losses to `MIN_LOSS`, in float32, for a logarithm or a division."""
    return jnp.maximum(losses.astype(jnp.float32), MIN_LOSS)


def masked_softmax(logits: Float[Array, " t"], labeled: Bool[Array, " t"]) -> Float[Array, " t"]:
    """Returns the softmax over the labeled tasks; 0 for the others."""
    # exp(-inf) is 0, so unlabeled tasks have no share. Without any labeled task the softmax is NaN,
    # and the outer `where` replaces it.
    return jnp.where(labeled, jax.nn.softmax(jnp.where(labeled, logits, -jnp.inf)), 0)


def order_by_task(
    what: str, values: Mapping[str, float], tasks: Sequence[str]
) -> Float[Array, " t"]:
    """Returns the values in the order of the tasks.

    Raises:
      ValueError: if a task has no value or a value has no task; the message begins with `what`.
    """
    if set(values) != set(tasks):
        raise ValueError(
            f"{what} are given for {sorted(values)}, but the tasks are {sorted(tasks)}; give one "
            "per task."
        )
    return jnp.array([values[t] for t in tasks], jnp.float32)
