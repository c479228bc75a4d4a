"""To and from the aggregators that optax has for stacked gradients (experimental there)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from optax.experimental import aggregating

from mmjax.balance.base import Balancer, State, from_jacobian
from mmjax.balance.pullback import of_jacobian
from mmjax.types import Params

Aggregator = aggregating.Aggregator


def from_aggregator(aggregator: Any) -> Balancer:
    """A balancer that hands the tasks' gradients over the shared parameters to an aggregator.

    An aggregator knows nothing of missing labels: it is given the mean of the other tasks'
    gradients in place of one that is missing, so that an average is that of the others. Nor does it
    tell what weights it gave: 1 is logged.

    Args:
      aggregator: optax's `Aggregator` (init, update), of gradients stacked along axis 0.
    """

    def init(tasks: Sequence[str], params: Params) -> State:
        return aggregator.init(params)

    def direction(jacobian, losses, state, *, key, labeled):
        rows = jax.tree.map(lambda leaf: fill(leaf, labeled), jacobian)
        gradient, state = aggregator.update(rows, state)
        return gradient, labeled.astype(losses.dtype), state

    return from_jacobian(init, direction)


def fill(leaf: Float[Array, "t ..."], labeled: Bool[Array, " t"]) -> Float[Array, "t ..."]:
    """The rows, with the mean of the labelled ones in place of the others."""
    mask = jnp.expand_dims(labeled, range(1, leaf.ndim))
    mean = jnp.where(mask, leaf, 0).sum(0, keepdims=True) / jnp.maximum(labeled.sum(), 1)
    return jnp.where(mask, leaf, mean.astype(leaf.dtype))


class AggregatorState(NamedTuple):
    """State of a balancer as an aggregator: its own, and the number of updates made."""

    balancer: State
    step: Int[Array, ""]


def to_aggregator(balancer: Balancer, tasks: Sequence[str], seed: int = 0) -> Any:
    """A balancer as an optax aggregator of gradients stacked along axis 0, one row a task.

    All parameters are shared ones to it. Its `update` takes, beside what optax prescribes, the
    keyword arguments `losses` [t], ones by default, and `labeled` [t], all by default. For a method
    that is a function of the Gramian, give `from_gram(weights)`.

    Args:
      balancer: any that needs neither several batches nor a second evaluation.
      tasks: the tasks' names in the order of the rows.
      seed: of its random draws.

    Raises:
      ValueError: if the balancer needs more than an aggregator is given.
    """
    if balancer.parts > 1 or balancer.after is not None:
        raise ValueError(
            "This balancer needs several batches or a second evaluation of the losses, which an "
            "optax aggregator does not get; use it in make_train_step."
        )

    def init(params: Any) -> AggregatorState:
        return AggregatorState(balancer.init(tuple(tasks), params), jnp.zeros((), jnp.int32))

    def update(per_elt_updates, state, params=None, *, losses=None, labeled=None, **extra_args):
        pullback = of_jacobian(per_elt_updates, jax.tree.map(lambda _: True, per_elt_updates))
        gradient, _, new = balancer.update(
            jnp.ones(len(tasks)) if losses is None else losses,
            pullback,
            state.balancer,
            key=jax.random.fold_in(jax.random.key(seed), state.step),
            labeled=jnp.ones(len(tasks), bool) if labeled is None else labeled,
        )
        return gradient, AggregatorState(new, state.step + 1)

    return Aggregator(init, update)
