"""Conversion to and from optax's (experimental) aggregators of stacked gradients."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from optax.experimental import aggregating

from mmjax.balance.base import Balancer, State
from mmjax.balance.from_functions import from_jacobian
from mmjax.balance.pullback import pullback_from_jacobian
from mmjax.types import Params

Aggregator = aggregating.Aggregator


def from_aggregator(aggregator: Any) -> Balancer:
    """Converts an aggregator to a balancer of the gradients of the shared parameters.

    An aggregator does not support missing labels: in place of a missing gradient it gets the mean
    of the other tasks' gradients, so that an average is that of the others. It does not return
    weights either: 1 is logged.

    Args:
      aggregator: optax's `Aggregator` (init, update), of gradients stacked along axis 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax.experimental import aggregating
      >>> from mmjax.balance import from_aggregator, to_aggregator
      >>> balancer = from_aggregator(aggregating.average_per_element_updates(0))
      >>> aggregator = to_aggregator(balancer, ("a", "b"))
      >>> print(aggregator.update(2 * jnp.eye(2), aggregator.init(jnp.zeros(2)))[0])
      [1. 1.]
    """

    def init(tasks: Sequence[str], params: Params) -> State:
        return aggregator.init(params)

    def direction(jacobian, losses, state, *, key, labeled):
        rows = jax.tree.map(lambda leaf: _fill_unlabeled_rows(leaf, labeled), jacobian)
        gradient, state = aggregator.update(rows, state)
        return gradient, labeled.astype(losses.dtype), state

    return from_jacobian(init, direction)


def _fill_unlabeled_rows(
    leaf: Float[Array, "t ..."], labeled: Bool[Array, " t"]
) -> Float[Array, "t ..."]:
    """Replaces the rows of unlabeled tasks by the mean of the others."""
    mask = jnp.expand_dims(labeled, range(1, leaf.ndim))
    mean = jnp.where(mask, leaf, 0).sum(0, keepdims=True) / jnp.maximum(labeled.sum(), 1)
    return jnp.where(mask, leaf, mean.astype(leaf.dtype))


class AggregatorState(NamedTuple):
    """State of a balancer as an aggregator: its own state, and the number of updates."""

    balancer: State
    step: Int[Array, ""]


def to_aggregator(balancer: Balancer, tasks: Sequence[str], seed: int = 0) -> Any:
    """Converts a balancer to an optax aggregator of gradients stacked along axis 0, a row per task.

    All parameters count as shared. Its `update` takes, besides optax's arguments, the keyword
    arguments `losses` [t], ones by default, and `labeled` [t], all true by default. For a method
    that is a function of the Gramian, use `from_gram(weights)`.

    Args:
      balancer: one that needs neither several batches, nor a second evaluation of the losses, nor
        scores of modalities or parameters.
      tasks: the tasks' names in the order of the rows.
      seed: seed of its random draws.

    Raises:
      ValueError: if the balancer needs more than an aggregator gets.

    Example:
      >>> import jax.numpy as jnp
      >>> from mmjax.balance import static, to_aggregator
      >>> aggregator = to_aggregator(static({"a": 1.0, "b": 2.0}), ("a", "b"))
      >>> gradients = jnp.array([[1.0, 0.0], [3.0, 4.0]])
      >>> gradient, state = aggregator.update(gradients, aggregator.init(jnp.zeros(2)))
      >>> print(gradient)
      [7. 8.]
    """
    needs_model = balancer.scores is not None or balancer.params
    if balancer.parts > 1 or balancer.after is not None or needs_model:
        raise ValueError(
            "This balancer needs several batches, a second evaluation of the losses or the model, "
            "which an optax aggregator does not get; use it in make_train_step."
        )

    def init(params: Any) -> AggregatorState:
        return AggregatorState(balancer.init(tuple(tasks), params), jnp.zeros((), jnp.int32))

    def update(per_elt_updates, state, params=None, *, losses=None, labeled=None, **extra_args):
        pullback = pullback_from_jacobian(
            per_elt_updates, jax.tree.map(lambda _: True, per_elt_updates)
        )
        gradient, _, new = balancer.update(
            jnp.ones(len(tasks)) if losses is None else losses,
            pullback,
            state.balancer,
            # Drawn from the number of the step, so that a resumed run draws the same.
            key=jax.random.fold_in(jax.random.key(seed), state.step),
            labeled=jnp.ones(len(tasks), bool) if labeled is None else labeled,
        )
        return gradient, AggregatorState(new, state.step + 1)

    return Aggregator(init, update)
