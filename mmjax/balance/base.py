"""The balancer: how the gradients of several losses become one update.

A balancer is a pair of pure functions, like an optax transformation. It is handed the losses and a
`pullback`, the function from weights w to the gradient of sum_t w_t * loss_t. Calling it costs one
backward pass. A loss weighting calls it once; a gradient method maps it over the unit vectors and
so gets the Jacobian. Both the losses and what `pullback` returns are already reduced over devices,
so that a non-linear method is right under data parallelism without knowing of it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from mmjax.types import Params

State = Any


@runtime_checkable
class Update(Protocol):
    """Turns losses and their pullback into one gradient."""

    def __call__(
        self,
        losses: Float[Array, " t"],
        pullback: Callable[[Float[Array, " t"]], Params],
        state: State,
        *,
        key: Key[Array, ""],
        labeled: Bool[Array, " t"],
        shared: PyTree[bool],
    ) -> tuple[Params, State, Float[Array, " t"]]:
        """See `Balancer`."""
        ...


class Balancer(NamedTuple):
    """A pair of pure functions.

    Attributes:
      init: names of the tasks, in the order of the losses -> state.
      update: (losses, pullback, state, *, key, labeled, shared) -> (gradient, state, weights).
        `key` is fresh each step; `labeled` says which tasks have a label in this batch (the loss
        and the gradient of the others are 0); `shared` marks, leaf by leaf, the parameters that
        tasks share. The weights are those that the step used, for the log.
    """

    init: Callable[[Sequence[str]], State]
    update: Update


def from_losses(weights: Callable[..., Float[Array, " t"]]) -> Balancer:
    """Lifts `weights(losses, *, key, labeled) -> Float[t]` to a balancer without memory.

    No gradient flows through the weights.
    """

    def init(tasks: Sequence[str]) -> State:
        return ()

    def update(losses, pullback, state, *, key, labeled, shared):
        w = weights(losses, key=key, labeled=labeled)
        return pullback(w), state, w

    return Balancer(init, update)


def from_gram(weights: Callable[..., Float[Array, " t"]], *, weigh_heads: bool = False) -> Balancer:
    """Lifts `weights(gram, *, key, labeled) -> Float[t]` to a balancer without memory.

    The Gramian [t t] holds the inner products of the tasks' gradients over the shared parameters.
    An unlabelled task has a row and a column of zeros there, and weight 0 whatever `weights` says.

    Args:
      weights: the method.
      weigh_heads: whether parameters of one task alone are weighted too. By default they keep their
        own task's gradient, since there is nothing to balance there.
    """

    def init(tasks: Sequence[str]) -> State:
        return ()

    def update(losses, pullback, state, *, key, labeled, shared):
        jacobian = jax.vmap(pullback)(jnp.eye(len(losses), dtype=losses.dtype))
        w = weights(gramian(jacobian, shared), key=key, labeled=labeled)
        w = jnp.where(labeled, w, 0.0)
        return combine(jacobian, w, w if weigh_heads else jnp.ones_like(w), shared), state, w

    return Balancer(init, update)


def gramian(jacobian: Params, shared: PyTree[bool]) -> Float[Array, "t t"]:
    """Inner products of the tasks' gradients over the shared parameters.

    Computed at the highest precision that the device has, since a Gramian squares the condition
    number.

    Args:
      jacobian: a tree whose leaves have the tasks as leading axis.
      shared: the same tree of bools.
    """

    def one(rows: Array) -> Float[Array, "t t"]:
        flat = rows.reshape(len(rows), -1)
        return jnp.dot(flat, flat.T, precision=jax.lax.Precision.HIGHEST)

    rows = [j for j, s in zip(jax.tree.leaves(jacobian), jax.tree.leaves(shared), strict=True) if s]
    if not rows:
        raise ValueError("The tasks share no parameters, so there are no gradients to balance.")
    return sum(map(one, rows[1:]), start=one(rows[0]))


def combine(
    jacobian: Params,
    w_shared: Float[Array, " t"],
    w_heads: Float[Array, " t"],
    shared: PyTree[bool],
) -> Params:
    """The weighted sum of the tasks' gradients, with one weighting for each kind of parameter."""
    return jax.tree.map(
        lambda rows, s: jnp.tensordot(w_shared if s else w_heads, rows, axes=1), jacobian, shared
    )
