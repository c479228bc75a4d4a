"""The pullback: from weights of the losses to gradients, with as few backward passes as possible.

The model is differentiated in two stages. The first computes every task's features from the shared
parameters; the second, the heads, computes each task's loss from that task's features alone. So ONE
backward pass through all heads gives every task's gradient at its features, and a method only pays
for the backward passes through the first stage: one for a weighting, one per task for a Jacobian.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mmjax.balance.jacobian_rows import gramian, require_shared_params
from mmjax.deprecation import forward_names
from mmjax.parameters import partition_params
from mmjax.types import Params

__getattr__ = forward_names(
    __name__,
    {
        "of_jacobian": "mmjax.balance.pullback:pullback_from_jacobian",
        "weighted_sum": "mmjax.balance.jacobian_rows:weighted_sum",
    },
)

Weights = Float[Array, " t"]
Features = dict[str, PyTree[Array]]


class ModalityScores(NamedTuple):
    """How well each modality predicts each task of the batch, reduced over devices.

    The response of a modality is the prediction from it alone, or from its Shapley value, by the
    model's own fusion, sharing and heads as at test; see `Balancer.scores`. Only examples count
    that have the modality and a label, under the weights of the labels.

    Attributes:
      modalities: their names, sorted: the rows.
      likelihoods: means of exp(-loss) of the responses. For cross-entropy that is the probability
        of the true class; for any loss that is a negative log-likelihood up to a constant, it is
        proportional to the likelihood, at most 1 if the loss is at least 0, and free of units.
      losses: means of the losses of the responses.
      counts: numbers of examples, or sums of their weights; 0 where a modality has no score.
      average_inputs: () -> {task: mean input of its head from each modality alone}, zeros for
        absent modalities; empty rows for heads whose input is not one vector per example.
    """

    modalities: tuple[str, ...]
    likelihoods: Float[Array, "m t"]
    losses: Float[Array, "m t"]
    counts: Float[Array, "m t"]
    average_inputs: Callable[[], dict[str, Float[Array, "m d"]]] = dict


class Pullback(NamedTuple):
    """Functions that compute gradients of the losses, reduced over devices.

    Trees of shared parameters have None in place of the task-specific parameters, which belong to
    one task, and vice versa; `mmjax.parameters.merge_params` combines them.

    Attributes:
      gradient: weights w -> gradient of sum_t w_t loss_t with respect to all parameters. Calling
        the pullback itself does the same.
      shared: w -> the part of it for the shared parameters.
      task_specific: w -> the part of it for the task-specific parameters.
      jacobian: () -> each task's gradient for the shared parameters: leaves [t, ...].
      feature_gram: () -> inner products [t t] of the tasks' gradients at the shared features.
      parts: pullbacks of independent parts of the batch, for balancers with `parts` > 1.
      scores: scores of the modalities, for balancers with `scores`.
      params: the parameters at which it differentiates, if there is a model.
    """

    gradient: Callable[[Weights], Params]
    shared: Callable[[Weights], Params]
    task_specific: Callable[[Weights], Params]
    jacobian: Callable[[], Params]
    feature_gram: Callable[[], Float[Array, "t t"]]
    parts: tuple["Pullback", ...] = ()
    scores: ModalityScores | None = None
    params: Params | None = None

    def __call__(self, weights: Weights) -> Params:
        """Returns the gradient of the weighted sum of the losses, for all parameters."""
        return self.gradient(weights)


def differentiate_losses(
    represent: Callable[[Params], tuple[Features, Any]],
    head_losses: Callable[[Params, Features], tuple[Float[Array, " t"], Any]],
    params: Params,
    *,
    tasks: Sequence[str],
    shared: PyTree[bool],
    reduce: Callable[[Any], Any] = lambda x: x,
) -> tuple[Float[Array, " t"], Pullback, Any]:
    """Returns (losses, their pullback, auxiliary outputs of both functions).

    Args:
      represent: parameters -> (each task's features, auxiliary output that is not differentiated).
      head_losses: (parameters, features) -> (losses, auxiliary output that is not differentiated);
        each loss depends on the features of its own task only.
      params: the point at which to differentiate.
      tasks: the tasks' names in the order of the losses.
      shared: a tree of parameters that marks those that tasks share.
      reduce: sums over devices.

    Example:
      Two quadratic losses of a shared parameter p; task b has a scale s of its own.

      >>> losses, pullback, _ = differentiate_losses(
      ...     lambda params: ({"a": params["p"], "b": params["p"]}, None),
      ...     lambda params, x: (jnp.stack([x["a"] ** 2, params["s"] * x["b"] ** 2]), None),
      ...     {"p": jnp.array(3.0), "s": jnp.array(2.0)},
      ...     tasks=("a", "b"),
      ...     shared={"p": True, "s": False},
      ... )
      >>> print(losses, pullback.jacobian()["p"], pullback.task_specific(jnp.ones(2))["s"])
      [ 9. 18.] [ 6. 12.] 9.0
    """
    features, params_vjp, features_aux = jax.vjp(represent, params, has_aux=True)
    losses, heads_vjp, losses_aux = jax.vjp(head_losses, params, features, has_aux=True)
    # A loss depends on its own task's features only, so the cotangent of the features of task t
    # under weights w is w_t times this one.
    feature_gradients = heads_vjp(jnp.ones_like(losses))[1]

    def gradient(w: Weights) -> Params:
        # By the chain rule the gradient is the heads' own part plus that through the features.
        direct, cotangent = heads_vjp(w)
        return reduce(jax.tree.map(jnp.add, direct, params_vjp(cotangent)[0]))

    def local_gradient(w: Weights) -> Params:
        cotangent = {t: _scale_tree(feature_gradients[t], w[i]) for i, t in enumerate(tasks)}
        return jax.tree.map(jnp.add, heads_vjp(w)[0], params_vjp(cotangent)[0])

    def local_shared(w: Weights) -> Params:
        return partition_params(local_gradient(w), shared)[0]

    pullback = Pullback(
        gradient=gradient,
        shared=lambda w: reduce(local_shared(w)),
        task_specific=lambda w: reduce(partition_params(local_gradient(w), shared)[1]),
        jacobian=lambda: require_shared_params(reduce(_map_unit_weights(local_shared, losses))),
        feature_gram=lambda: reduce(_feature_gramian(features, feature_gradients, tasks)),
    )
    return reduce(losses), pullback, (features_aux, losses_aux)


def _map_unit_weights(function: Callable[[Weights], Any], losses: Float[Array, " t"]) -> Any:
    """Maps a function of weights over e_1 to e_t, each of which is 1 for one loss and 0 for others.

    One by one on CPU, where that is faster, else at once.
    """
    unit_weights = jnp.eye(len(losses), dtype=losses.dtype)
    map_in_turn = partial(jax.lax.map, function)

    def map_at_once(x: Float[Array, "t t"]) -> Any:
        # JAX cannot batch a convolution in groups over both operands, which the gradient of copied
        # encoders needs where micro-batches are computed again. CPUs trace all branches, too.
        try:
            return jax.vmap(function)(x)
        except NotImplementedError:
            return map_in_turn(x)

    return jax.lax.platform_dependent(unit_weights, cpu=map_in_turn, default=map_at_once)


def pullback_from_jacobian(jacobian: Params, shared: PyTree[bool]) -> Pullback:
    """Makes the pullback of given gradients: leaves [t, ...], one row per task.

    It is for toy problems and tests; its feature Gramian is that of the shared parameters.

    Example:
      >>> pullback = pullback_from_jacobian({"x": jnp.array([[1.0, 0.0], [1.0, 2.0]])}, {"x": True})
      >>> print(pullback(jnp.array([1.0, 0.5]))["x"])
      [1.5 1. ]
    """

    def gradient(w: Weights) -> Params:
        return jax.tree.map(lambda rows: jnp.tensordot(w, rows, axes=1), jacobian)

    rows = partition_params(jacobian, shared)[0]
    return Pullback(
        gradient=gradient,
        shared=lambda w: partition_params(gradient(w), shared)[0],
        task_specific=lambda w: partition_params(gradient(w), shared)[1],
        jacobian=lambda: require_shared_params(rows),
        feature_gram=lambda: gramian(rows),
    )


def _scale_tree(tree: PyTree[Array], factor: Float[Array, ""]) -> PyTree[Array]:
    """Scales the leaves in their own types; the float0 gradients of masks stay as they are."""
    return jax.tree.map(
        lambda x: x if x.dtype == jax.dtypes.float0 else x * factor.astype(x.dtype), tree
    )


def _feature_gramian(
    features: Features, feature_gradients: Features, tasks: Sequence[str]
) -> Float[Array, "t t"]:
    """Returns the inner products of the tasks' gradients at features that they share.

    Raises:
      ValueError: if the tasks' features are not the same.
    """
    first, *others = (jax.tree.leaves(features[t]) for t in tasks)
    # Shared features are the same traced arrays.
    pairs = [pair for other in others for pair in zip(first, other, strict=False)]
    require_shared_features(all(x is y for x, y in pairs))
    rows = [feature_gradients[t] for t in tasks]
    # G_ij = <g_i, g_j> with the gradients at the features, summed over the batch axis as well.
    return gramian(jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows))


def require_shared_features(are_shared: bool) -> None:
    """Raises ValueError for gradients at the tasks' features unless all tasks have the same."""
    if not are_shared:
        raise ValueError(
            'wrt="features" needs features that all tasks share, but the model\'s sharing, or its '
            'auxiliary objectives, have features of their own; use wrt="params", or HardSharing '
            "alone."
        )
