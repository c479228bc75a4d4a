"""The pullback: from weights of the losses to gradients, by as little work as a method needs.

The model is differentiated in two stages. The first makes every task's features from all
parameters that tasks share; the second, the heads, makes each task's loss from that task's features
alone. So ONE backward pass of all heads gives every task's gradient at its features, and what a
method pays for is only the backward passes of the first stage: one for a weighting, one a task for
a Jacobian.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mmjax.kernels.linear_algebra import dot
from mmjax.parameters import partition
from mmjax.types import Params

Weights = Float[Array, " t"]
Features = dict[str, PyTree[Array]]


class Pullback(NamedTuple):
    """Gradients of the losses, reduced over devices.

    Trees of shared parameters have None in place of the parameters that belong to one task, and the
    other way round; `merge` puts them together.

    Attributes:
      gradient: weights w -> gradient of sum_t w_t loss_t over all parameters. Calling the pullback
        itself does the same.
      shared: w -> that over the shared parameters.
      task_specific: w -> that over the parameters of one task alone.
      jacobian: () -> each task's gradient over the shared parameters: leaves [t, ...].
      feature_gram: () -> inner products [t t] of the tasks' gradients at the shared features.
      parts: pullbacks and losses of independent parts of the batch, for balancers with `parts` > 1.
    """

    gradient: Callable[[Weights], Params]
    shared: Callable[[Weights], Params]
    task_specific: Callable[[Weights], Params]
    jacobian: Callable[[], Params]
    feature_gram: Callable[[], Float[Array, "t t"]]
    parts: tuple["Pullback", ...] = ()

    def __call__(self, weights: Weights) -> Params:
        """The gradient of the weighted sum of the losses, over all parameters."""
        return self.gradient(weights)


def differentiate(
    represent: Callable[[Params], Features],
    head_losses: Callable[[Params, Features], tuple[Float[Array, " t"], Any]],
    params: Params,
    *,
    tasks: Sequence[str],
    shared: PyTree[bool],
    reduce: Callable[[Any], Any] = lambda x: x,
) -> tuple[Float[Array, " t"], Pullback, Any]:
    """The losses, their pullback, and what else `head_losses` tells.

    Args:
      represent: parameters -> each task's features.
      head_losses: (parameters, features) -> losses, each from its own task's features; and
        whatever else is not to be differentiated.
      params: where to differentiate.
      tasks: the tasks' names in the order of the losses.
      shared: marks, leaf by leaf, the parameters that tasks share.
      reduce: sums over devices.
    """
    features, to_params = jax.vjp(represent, params)
    losses, to_features, others = jax.vjp(head_losses, params, features, has_aux=True)
    of_features = to_features(jnp.ones_like(losses))[1]

    def gradient(w: Weights) -> Params:
        direct, cotangent = to_features(w)
        return reduce(jax.tree.map(jnp.add, direct, to_params(cotangent)[0]))

    def local(w: Weights) -> Params:
        cotangent = {t: scale(of_features[t], w[i]) for i, t in enumerate(tasks)}
        return jax.tree.map(jnp.add, to_features(w)[0], to_params(cotangent)[0])

    def of_shared(w: Weights) -> Params:
        return partition(local(w), shared)[0]

    pullback = Pullback(
        gradient=gradient,
        shared=lambda w: reduce(of_shared(w)),
        task_specific=lambda w: reduce(partition(local(w), shared)[1]),
        jacobian=lambda: reduce(each(of_shared, jnp.eye(len(tasks), dtype=losses.dtype))),
        feature_gram=lambda: reduce(feature_gram(features, of_features, tasks)),
    )
    return reduce(losses), pullback, others


def each(function: Callable[[Array], Any], rows: Float[Array, "t d"]) -> Any:
    """The function of every row, stacked: in turn on CPU, where that is faster, else at once."""
    return jax.lax.platform_dependent(
        rows, cpu=lambda x: jax.lax.map(function, x), default=jax.vmap(function)
    )


def of_jacobian(jacobian: Params, shared: PyTree[bool]) -> Pullback:
    """The pullback of gradients that are known: leaves [t, ...], one row a task.

    For toy problems and tests; its feature Gramian is that of the shared parameters.
    """

    def gradient(w: Weights) -> Params:
        return jax.tree.map(lambda rows: jnp.tensordot(w, rows, axes=1), jacobian)

    rows = partition(jacobian, shared)[0]
    return Pullback(
        gradient=gradient,
        shared=lambda w: partition(gradient(w), shared)[0],
        task_specific=lambda w: partition(gradient(w), shared)[1],
        jacobian=lambda: rows,
        feature_gram=lambda: gramian(rows),
    )


def scale(tree: PyTree[Array], factor: Float[Array, ""]) -> PyTree[Array]:
    """The tree times a number, in the tree's own types; masks have no gradient to scale."""
    return jax.tree.map(
        lambda x: x if x.dtype == jax.dtypes.float0 else x * factor.astype(x.dtype), tree
    )


def feature_gram(
    features: Features, of_features: Features, tasks: Sequence[str]
) -> Float[Array, "t t"]:
    """Inner products of the tasks' gradients at features that they share.

    Raises:
      ValueError: if the tasks' features are not the same.
    """
    one, *others = (jax.tree.leaves(features[t]) for t in tasks)
    if any(x is not y for other in others for x, y in zip(one, other, strict=False)):
        raise ValueError(
            'wrt="features" needs features that all tasks share, but the model\'s sharing, or its '
            'auxiliary objectives, have features of their own; use wrt="params", or HardSharing '
            "alone."
        )
    rows = [of_features[t] for t in tasks]
    return gramian(jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows))


def gramian(rows: PyTree[Array]) -> Float[Array, "t t"]:
    """Inner products [t t] of a tree's rows: leaves [t, ...].

    Computed in float32 at the highest precision that the device has, since a Gramian squares the
    condition number.
    """

    def one(leaf: Array) -> Float[Array, "t t"]:
        flat = leaf.reshape(len(leaf), -1).astype(jnp.promote_types(leaf.dtype, jnp.float32))
        return dot(flat, flat.T)

    leaves = jax.tree.leaves(rows)
    if not leaves:
        raise ValueError("The tasks share no parameters, so there are no gradients to balance.")
    return sum(map(one, leaves[1:]), start=one(leaves[0]))


def weighted_sum(rows: PyTree[Array], weights: Weights) -> PyTree[Array]:
    """The rows' sum with these weights: leaves [t, ...] to [...]."""
    return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, axes=1), rows)
