"""The losses of a training step, their pullback, and the modalities' scores."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mmjax.balance.pullback import Pullback, differentiate_losses
from mmjax.freezing import complete_variables, select_same_keys
from mmjax.layers.batch_norm import freeze_batch_statistics
from mmjax.model import Model
from mmjax.parameters import mark_shared_parameters
from mmjax.train.hardware.split_arrays import regather_in_backward_pass
from mmjax.train.steps.device_sums import sum_over_devices
from mmjax.train.steps.forward import (
    compute_predictions,
    compute_scored_features,
    count_labels,
    divide_by_counts,
    get_loss_names,
    get_task_names,
    sum_losses,
    sum_objectives,
    weigh_labels,
)
from mmjax.train.steps.joined_variables import join_variables
from mmjax.train.steps.micro_batches import map_micro_batches
from mmjax.train.steps.modality_scores import list_scored_subsets, score_modalities
from mmjax.types import Batch, Params, Variables, Visible


class StepSettings(NamedTuple):
    """What all steps of a training have in common.

    Attributes:
      model: the model.
      compute_dtype: "float32" or "bfloat16".
      axis_name: name of the device axis; None on a single device.
      scores: predictions by which the modalities are scored; None for no scores.
      accumulate: number of micro-batches that make up the batch of one device.
    """

    model: Model
    compute_dtype: str
    axis_name: str | None
    scores: Literal["unimodal", "shapley"] | None
    accumulate: int = 1

    def reduce(self, x: Any) -> Any:
        """Sums over devices."""
        return x if self.axis_name is None else sum_over_devices(x, self.axis_name)

    def gather(self, x: Any) -> Any:
        """Concatenates the arrays [b, ...] of all devices."""
        return x if self.axis_name is None else jax.lax.all_gather(x, self.axis_name, tiled=True)


class StepLosses(NamedTuple):
    """Losses of a batch, reduced over devices, in the order of `get_loss_names`.

    Attributes:
      losses: means over the labeled examples.
      pullback: computes their gradients.
      counts: numbers of labels, or sums of their weights.
      variables: those that are not parameters, as the pass updates them.
    """

    losses: Float[Array, " t"]
    pullback: Pullback
    counts: Float[Array, " t"]
    variables: Variables


def differentiate_batch(
    settings: StepSettings,
    params: Params,
    variables: Variables,
    batch: Batch,
    key: Key[Array, ""],
    frozen: Variables | None,
    visible: Mapping[str, Visible] | None = None,
) -> StepLosses:
    """Computes mean losses over all devices, and how to differentiate them.

    Args:
      settings: of the step.
      params: the parameters that train.
      variables: the other variables that the state holds.
      batch: this device's part of the batch.
      key: random key of this device's dropout.
      frozen: variables that do not train.
      visible: which modalities each example shows to the fusion; None for all that it has.
    """
    model, names = settings.model, get_loss_names(settings.model)
    shared_options: Any = {"rngs": {"dropout": key}, "axis_name": settings.axis_name}
    options = shared_options | {"compute_dtype": settings.compute_dtype, "train": True}

    def represent(params: Params) -> tuple[dict[str, Any], Any]:
        return _compute_all_features(
            settings, {"params": params, **variables}, frozen, batch, visible, options
        )

    def head_losses(params: Params, features: dict[str, Any]) -> tuple[Array, Any]:
        every = complete_variables({"params": params, **variables}, frozen)
        predictions, of_heads = compute_predictions(model, every, features, **options)
        totals, counts, is_weighted, of_objectives = _sum_all_losses(
            settings, every, predictions, features, batch, shared_options
        )
        means = divide_by_counts(totals, counts, is_weighted)
        return means, (counts, of_heads, of_objectives)

    with freeze_batch_statistics((frozen or {}).get("batch_stats", {})):
        losses, pullback, auxiliary = differentiate_losses(
            regather_in_backward_pass(represent),
            regather_in_backward_pass(head_losses),
            params,
            tasks=names,
            shared=mark_shared_parameters(model, params),
            reduce=settings.reduce,
        )
    pullback = pullback._replace(params=params)
    (of_features, of_subsets), (counts, of_heads, of_objectives) = auxiliary
    if settings.scores is not None:
        every = complete_variables({"params": params, **variables}, frozen)
        pullback = pullback._replace(scores=score_modalities(settings, every, of_subsets, batch))
    old = complete_variables(variables, frozen and _drop_params(frozen))
    updated = join_variables(old, of_features, of_heads, of_objectives)
    return StepLosses(losses, pullback, counts, select_same_keys(updated, variables))


def _compute_all_features(
    settings: StepSettings,
    trained: Variables,
    frozen: Variables | None,
    batch: Batch,
    visible: Mapping[str, Visible] | None,
    options: Any,
) -> tuple[dict[str, Any], tuple[Variables, dict[str, dict[str, Any]]]]:
    """Returns the features, the updated variables, and the features of scored subsets."""
    scored = list_scored_subsets(settings.scores, settings.model)

    def compute(others: Variables, examples: tuple[Batch, Any], key: Key[Array, ""]) -> Any:
        part, shown = examples
        # Low-rank updates are merged per micro-batch: gradients of whole kernels do not add up.
        every = complete_variables(trained, frozen) | others
        features, updated, of_subsets = compute_scored_features(
            settings.model,
            every,
            part,
            scored=scored,
            visible=shown,
            **(options | {"rngs": {"dropout": key}}),
        )
        return (features, of_subsets), updated

    key = options["rngs"]["dropout"]
    if settings.accumulate == 1:
        (features, of_subsets), updated = compute({}, (batch, visible), key)
    else:
        others = complete_variables(_drop_params(trained), frozen and _drop_params(frozen))
        # The heads see the whole batch; only what encoders and fusion read is divided.
        examples = batch._replace(targets={}, labeled={}, weights={}), visible
        (features, of_subsets), updated = map_micro_batches(
            compute, settings.accumulate, others, examples, key
        )
    return features, (updated, of_subsets)


def _sum_all_losses(
    settings: StepSettings,
    variables: Variables,
    predictions: dict[str, Array],
    features: dict[str, Any],
    batch: Batch,
    options: Any,
) -> tuple[Float[Array, " t"], Float[Array, " t"], list[bool], Variables]:
    """Returns totals on this device, counts on all, which are weights, and updated variables."""
    model, tasks = settings.model, get_task_names(settings.model)
    label_weights = weigh_labels(model, batch)
    of_tasks = (
        sum_losses(model, predictions, batch, tasks, label_weights),
        count_labels(batch, tasks, label_weights),
    )
    *of_others, of_objectives = sum_objectives(
        model, variables, features, batch, gather=settings.gather, **options
    )
    totals, counts = map(jnp.concatenate, zip(of_tasks, of_others, strict=True))
    # Totals are reduced with their gradients, by `differentiate_losses`; counts have none.
    counts = settings.reduce(jax.lax.stop_gradient(counts))
    is_weighted = [name in label_weights for name in get_loss_names(model)]
    return totals, counts, is_weighted, of_objectives


def _drop_params(variables: Variables) -> Variables:
    """Returns the collections that are not parameters."""
    return {name: tree for name, tree in variables.items() if name != "params"}
