"""Scores of the modalities: how well each one alone predicts the batch of a training step.

The encoders ran already; only what follows them runs again, without a gradient, as at test.
"""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.backbone import join_modalities
from mmjax.balance.pullback import ModalityScores
from mmjax.heads.class_weights import get_training_loss
from mmjax.masks import expand_mask, zero_missing_targets
from mmjax.model import Model
from mmjax.train.steps.forward import compute_predictions, get_task_names, weigh_labels
from mmjax.types import Batch, Variables

if TYPE_CHECKING:
    from mmjax.train.steps.step_losses import StepSettings

Responses = dict[str, dict[str, Array]]


def list_scored_subsets(
    scores: Literal["unimodal", "shapley"] | None, model: Model
) -> list[tuple[str, ...]]:
    """Returns the subsets of the modalities whose predictions the scores need."""
    modalities = sorted(model.encoders)
    if scores is None:
        return []
    if scores == "unimodal":
        return [(m,) for m in modalities]
    return list_subsets(modalities)


def list_subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns all subsets of the modalities, the smallest first.

    Example:
      >>> list_subsets(["a", "b"])
      [(), ('a',), ('b',), ('a', 'b')]
    """
    sizes = range(len(modalities) + 1)
    return [s for size in sizes for s in itertools.combinations(modalities, size)]


def score_modalities(
    settings: "StepSettings", variables: Variables, features: dict[str, Any], batch: Batch
) -> ModalityScores:
    """Scores every modality on every task, over all devices.

    Args:
      settings: of the step.
      variables: as of `Model.apply`.
      features: {subset: {task: input of the head}}, for the subsets of `list_scored_subsets`.
      batch: this device's part of the batch.
    """
    model, tasks = settings.model, get_task_names(settings.model)
    options: Any = {"compute_dtype": settings.compute_dtype, "train": False}
    predictions = {
        subset: compute_predictions(model, variables, x, **options)[0]
        for subset, x in features.items()
    }
    modalities = tuple(sorted(model.encoders))
    responses = {m: predictions[m] for m in modalities}
    if settings.scores == "shapley":
        responses = compute_shapley_responses(predictions, modalities)
    label_weights = weigh_labels(model, batch)
    targets = zero_missing_targets(batch)
    sums: list[Any] = []
    for m in modalities:
        for t in tasks:
            weights = label_weights.get(t, batch.labeled[t].astype(jnp.float32))
            weights = jnp.where(batch.present[m], weights, 0.0)
            losses = jax.vmap(get_training_loss(model.heads[t]))(responses[m][t], targets[t])
            # What is not labeled, or lacks the modality, may have any loss.
            losses = jnp.where(weights > 0, losses, 0.0)
            sums.append(jnp.stack([weights @ jnp.exp(-losses), weights @ losses, weights.sum()]))
    totals = settings.reduce(jnp.stack(sums))  # one sum over devices for all scores

    def average_inputs() -> dict[str, Float[Array, "m d"]]:
        sums = {
            t: [_sum_inputs(features[m][t], batch.present[m]) for m in modalities] for t in tasks
        }
        return {t: _divide_inputs(x) for t, x in settings.reduce(sums).items()}

    likelihoods, losses, counts = totals.reshape(len(modalities), len(tasks), 3).transpose(2, 0, 1)
    # A modality without a labeled example on any device has a total of 0, and scores 0.
    divisors = jnp.where(counts > 0, counts, 1.0)
    return ModalityScores(
        modalities,
        likelihoods / divisors,
        losses / divisors,
        counts,
        average_inputs,
    )


def compute_shapley_responses(
    predictions: dict[str, dict[str, Array]], modalities: tuple[str, ...]
) -> Responses:
    """Computes v(none) + φ_m: the prediction from nothing plus the modality's Shapley value.

    With v(S) the prediction from the subset S, φ_m is the mean of v(S with m) - v(S) under the
    weights |S|! (M - |S| - 1)! / M!. If the prediction is a sum of functions of single modalities,
    the response is the prediction from m alone.

    Args:
      predictions: {subset: {task: predictions}} for all subsets.
      modalities: the modalities, sorted.

    Returns:
      {modality: {task: response}}.

    Example:
      >>> v = {"none": 1.0, "a": 3.0, "b": 2.0, "a+b": 8.0}
      >>> predictions = {subset: {"y": jnp.array(x)} for subset, x in v.items()}
      >>> responses = compute_shapley_responses(predictions, ("a", "b"))
      >>> float(responses["a"]["y"]), float(responses["b"]["y"])
      (5.0, 4.0)
    """
    responses: Responses = {}
    count = len(modalities)
    for m in modalities:
        others = [x for x in modalities if x != m]
        total: Any = predictions["none"]
        for subset in list_subsets(others):
            size = len(subset)
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            without = predictions[join_modalities(subset)]
            extended = predictions[join_modalities((*subset, m))]
            total = jax.tree.map(
                lambda x, a, b, w=weight: x + w * (a - b), total, extended, without
            )
        responses[m] = total
    return responses


def _sum_inputs(x: Any, present: Array) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """Sums a head's inputs over the examples that have the modality, and counts these."""
    if not isinstance(x, jax.Array) or x.ndim != 2:  # branches, or tokens
        return jnp.zeros(0), jnp.zeros(())
    rows = jnp.where(expand_mask(present, x.ndim), x, 0).astype(jnp.float32)
    return rows.sum(axis=0), present.sum().astype(jnp.float32)


def _divide_inputs(
    sums: Sequence[tuple[Float[Array, " d"], Float[Array, ""]]],
) -> Float[Array, "m d"]:
    """Returns the mean inputs of a head from each modality; zeros for an absent one."""
    return jnp.stack([total / jnp.maximum(count, 1) for total, count in sums])
