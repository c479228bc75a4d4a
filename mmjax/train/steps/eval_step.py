"""The pure evaluation step."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from mmjax.masks import sum_masked, zero_missing_targets
from mmjax.model import Model
from mmjax.train.steps.forward import (
    compute_features,
    compute_predictions,
    count_labels,
    get_task_names,
    sum_losses,
)
from mmjax.types import Batch, Params

Statistics = dict[str, dict[str, Array]]
EvalStep = Callable[[Params, Batch], Statistics]


def make_eval_step(
    model: Model, *, compute_dtype: str = "float32", axis_name: str | None = None
) -> EvalStep:
    """Makes the pure function (params, batch) -> statistics.

    The statistics {task: {name: array}} are sums over the labeled examples, to be merged by adding.
    A task has the `statistics` of its head and two more: "loss" and "examples", the number of its
    labeled examples. The head's `summary` turns its own into metrics; the ratio of the other two is
    the mean loss.

    Args:
      model: the model.
      compute_dtype: "float32" or "bfloat16".
      axis_name: name of the device axis, over which statistics are summed.
    """

    def eval_step(params: Params, batch: Batch) -> Statistics:
        options: Any = {"compute_dtype": compute_dtype, "train": False}
        features = compute_features(model, params, batch, **options)
        predictions = compute_predictions(model, params, features, **options)
        sums = compute_statistics(model, predictions, batch)
        return sums if axis_name is None else jax.lax.psum(sums, axis_name)

    return eval_step


def compute_statistics(model: Model, predictions: dict[str, Array], batch: Batch) -> Statistics:
    """Computes the statistics of predictions for a batch; see `make_eval_step`."""
    tasks = get_task_names(model)
    losses = sum_losses(model, predictions, batch, tasks)
    counts = count_labels(batch, tasks)
    targets = zero_missing_targets(batch)
    sums = {}
    for i, task in enumerate(tasks):
        examples = jax.vmap(model.heads[task].statistics)(predictions[task], targets[task])
        reserved = sorted({"loss", "examples"} & set(examples))
        if reserved:
            raise ValueError(
                f"The head of task {task!r} has statistics named {reserved}, which evaluation "
                "adds itself; give them other names."
            )
        labeled = batch.labeled[task]
        totals = jax.tree.map(lambda x, labeled=labeled: sum_masked(x, labeled), examples)
        sums[task] = totals | {"loss": losses[i], "examples": counts[i]}
    return sums
