"""Evaluates all losses of a model, auxiliary ones included, as at test."""

from collections.abc import Callable
from typing import Any

import jax

from mmjax.masks import zero_missing_targets
from mmjax.model import Model
from mmjax.train.steps.device_sums import sum_over_devices
from mmjax.train.steps.eval_step import Statistics
from mmjax.train.steps.forward import (
    compute_predictions,
    compute_scored_features,
    count_labels,
    get_loss_names,
    get_task_names,
    sum_losses,
    sum_objectives,
)
from mmjax.types import Batch, Variables


def make_loss_step(
    model: Model, *, compute_dtype: str = "float32", axis_name: str | None = None
) -> Callable[[Variables, Batch], Statistics]:
    """Makes the pure function (variables, batch) -> {loss: {"loss": total, "examples": count}}.

    Args:
      model: the model.
      compute_dtype: "float32" or "bfloat16".
      axis_name: name of the device axis, over which the sums are taken.
    """

    def gather(x: Any) -> Any:
        return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)

    def loss_step(variables: Variables, batch: Batch) -> Statistics:
        options: Any = {"compute_dtype": compute_dtype, "train": False}
        features, _, _ = compute_scored_features(
            model, variables, batch, scored=(), visible=None, record=True, **options
        )
        predictions, _ = compute_predictions(model, variables, features, **options)
        tasks = get_task_names(model)
        batch = batch._replace(targets=zero_missing_targets(batch))
        totals = list(sum_losses(model, predictions, batch, tasks))
        counts = list(count_labels(batch, tasks))
        of_objectives = sum_objectives(
            model, variables, features, batch, rngs=None, gather=gather, train=False
        )
        totals, counts = [*totals, *of_objectives[0]], [*counts, *of_objectives[1]]
        sums: Statistics = {
            name: {"loss": totals[i], "examples": counts[i]}
            for i, name in enumerate(get_loss_names(model))
        }
        return sums if axis_name is None else sum_over_devices(sums, axis_name)

    return loss_step
