"""Balancers from functions of the losses, of the tasks' Gramian or of the Jacobian.

See `mmjax.balance.base` for the notation.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.balance.base import Balancer, State, Wrt, init_empty_state
from mmjax.balance.jacobian_rows import gramian, weighted_sum
from mmjax.kernels.small_arrays import compute_on_each_device
from mmjax.parameters import merge_params, select_matching_params
from mmjax.types import Params


def from_losses(weights: Callable[..., Float[Array, " t"]]) -> Balancer:
    """Lifts `weights(losses, *, key, labeled) -> Float[t]` to a balancer without memory.

    No gradient flows through the weights.

    Example:
      >>> import jax.numpy as jnp
      >>> from mmjax.balance import from_losses, to_aggregator
      >>> balancer = from_losses(lambda losses, *, key, labeled: losses / losses.sum())
      >>> aggregator = to_aggregator(balancer, ("a", "b"))
      >>> state = aggregator.init(jnp.zeros(2))
      >>> gradient, _ = aggregator.update(jnp.eye(2), state, losses=jnp.array([1.0, 3.0]))
      >>> print(gradient)
      [0.25 0.75]
    """

    def update(losses, pullback, state, *, key, labeled):
        w = weights(losses, key=key, labeled=labeled)
        return pullback(w), w, state

    return Balancer(init_empty_state, update)


def from_gram(
    weights: Callable[..., Float[Array, " t"]],
    *,
    wrt: Wrt = "params",
    weigh_heads: bool = False,
    rescale: bool = False,
) -> Balancer:
    """Lifts `weights(gram, *, key, labeled) -> Float[t]` to a balancer without memory.

    The Gramian G [t t] holds the inner products of the tasks' gradients. The row and
    the column of an unlabeled task are 0, and its weight is set to 0 whatever `weights` returns.

    Args:
      weights: the method.
      wrt: what the gradients are taken with respect to. "params": all shared parameters, one
        backward pass per task. "features": the features that the heads share, one backward pass in
        all (called MGDA-UB by Sener, Koltun, NeurIPS 2018). A tuple of patterns of parameter paths,
        such as ("sharing/*",): the matching shared parameters, one backward pass per task down to
        them and one through the rest; the weights apply to all shared parameters.
      weigh_heads: whether task-specific parameters are weighted too. By default they keep their
        task's gradient, since there is nothing to balance.
      rescale: whether the weights are scaled to sum to the number of labeled tasks, so that methods
        can be compared at the same learning rate.

    Example:
      Gradients of lengths 1 and 2 are normalized.

      >>> import jax.numpy as jnp
      >>> from mmjax.balance import from_gram, to_aggregator
      >>> balancer = from_gram(lambda gram, *, key, labeled: 1 / jnp.sqrt(jnp.diag(gram)))
      >>> aggregator = to_aggregator(balancer, ("a", "b"))
      >>> gradients = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> print(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0])
      [1. 1.]
    """

    def stateless(gram, losses, state, *, key, labeled):
        return weights(gram, key=key, labeled=labeled), state

    return from_stateful_gram(
        init_empty_state, stateless, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale
    )


def from_stateful_gram(
    init: Callable[[Sequence[str], Params], State],
    weights: Callable[..., tuple[Float[Array, " t"], State]],
    *,
    wrt: Wrt = "params",
    weigh_heads: bool = False,
    rescale: bool = False,
) -> Balancer:
    """Lifts `weights(gram, losses, state, *, key, labeled) -> (Float[t], state)` to a balancer.

    It is `from_gram` for methods with memory.

    Raises:
      ValueError: if `wrt` is neither "params", nor "features", nor a tuple of patterns.

    Example:
      Weights that count the steps.

      >>> import jax.numpy as jnp
      >>> from mmjax.balance import from_stateful_gram, to_aggregator
      >>> def count_steps(gram, losses, state, *, key, labeled):
      ...     return jnp.full(2, state + 1.0), state + 1
      >>> balancer = from_stateful_gram(lambda tasks, params: 0, count_steps)
      >>> aggregator = to_aggregator(balancer, ("a", "b"))
      >>> _, state = aggregator.update(jnp.eye(2), aggregator.init(jnp.zeros(2)))
      >>> print(aggregator.update(jnp.eye(2), state)[0])
      [2. 2.]
    """
    if isinstance(wrt, str) and wrt not in ("params", "features"):
        raise ValueError(
            f'wrt is {wrt!r}; it must be "params", "features" or a tuple of patterns of parameter '
            'paths, such as ("sharing/*",).'
        )

    weights = compute_on_each_device(weights)

    def init_and_check(tasks: Sequence[str], params: Params) -> State:
        if not isinstance(wrt, str):
            select_matching_params(params, wrt)  # which refuses a pattern that matches none
        return init(tasks, params)

    def update(losses, pullback, state, *, key, labeled):
        rows = None if wrt == "features" else pullback.jacobian()
        if rows is None:
            gram = pullback.feature_gram()
        else:
            gram = gramian(rows if wrt == "params" else select_matching_params(rows, wrt))
        w, state = weights(gram, losses, state, key=key, labeled=labeled)
        w = jnp.where(labeled, w, 0.0)
        w = rescale_weights(w, labeled) if rescale else w
        # With patterns, XLA removes the unused rows of the other parameters, so they cost nothing.
        shared = weighted_sum(rows, w) if wrt == "params" else pullback.shared(w)
        task_specific = pullback.task_specific(w if weigh_heads else jnp.ones_like(w))
        return merge_params(shared, task_specific), w, state

    return Balancer(init_and_check, update)


def from_jacobian(
    init: Callable[[Sequence[str], Params], State],
    direction: Callable[..., tuple[Params, Float[Array, " t"], State]],
) -> Balancer:
    """Lifts `direction(jacobian, losses, state, *, key, labeled) -> (gradient, weights, state)`.

    It is for methods that need more than the Gramian. The Jacobian covers the shared parameters:
    leaves [t, ...]; the gradient has leaves [...]. Task-specific parameters keep their task's
    gradient.

    Example:
      In each entry, the largest of the tasks' gradients.

      >>> import jax
      >>> import jax.numpy as jnp
      >>> from mmjax.balance import from_jacobian, to_aggregator
      >>> def take_largest(jacobian, losses, state, *, key, labeled):
      ...     return jax.tree.map(lambda rows: rows.max(0), jacobian), jnp.ones(2), state
      >>> aggregator = to_aggregator(from_jacobian(lambda tasks, params: (), take_largest), "ab")
      >>> state = aggregator.init(jnp.zeros(2))
      >>> print(aggregator.update(jnp.array([[1.0, -1.0], [0.0, 2.0]]), state)[0])
      [1. 2.]
    """

    def update(losses, pullback, state, *, key, labeled):
        jacobian = pullback.jacobian()
        shared, w, state = direction(jacobian, losses, state, key=key, labeled=labeled)
        return merge_params(shared, pullback.task_specific(jnp.ones_like(losses))), w, state

    return Balancer(init, update)


def rescale_weights(weights: Float[Array, " t"], labeled: Bool[Array, " t"]) -> Float[Array, " t"]:
    """Scales the weights to sum to the number of labeled tasks if their sum is positive."""
    total = weights.sum()
    safe = jnp.where(total > 0, total, 1.0)
    return jnp.where(total > 0, weights * (labeled.sum() / safe), weights)
