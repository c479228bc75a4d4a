"""The pure evaluation step."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from mmjax.masks import sum_masked, zero_missing_targets
from mmjax.metrics import PerExample
from mmjax.metrics.statistics import is_per_example
from mmjax.model import Model
from mmjax.train.steps.forward import (
    compute_features,
    compute_predictions,
    count_labels,
    get_task_names,
    sum_losses,
)
from mmjax.types import Batch, Variables

Statistics = dict[str, dict[str, Array | PerExample]]
EvalStep = Callable[[Variables, Batch], Statistics]


def make_eval_step(
    model: Model, *, compute_dtype: str = "float32", axis_name: str | None = None
) -> EvalStep:
    """Makes the pure function (variables, batch) -> statistics.

    The variables are those of `Model.apply`: {"params": parameters, and other collections}.
    A task has the `statistics` of its head and two more: "loss" and "examples", the number of its
    labeled examples. Arrays are sums over the labeled examples, to be merged by adding; what a head
    keeps `PerExample` has the examples of all devices, to be merged by concatenating. The head's
    `summary` turns its own into metrics; the ratio of the other two is the mean loss. If the head
    has `extra_metrics`, "prediction" and "target" are kept for them.

    Args:
      model: the model.
      compute_dtype: "float32" or "bfloat16".
      axis_name: name of the device axis, over which statistics are summed.
    """

    def eval_step(variables: Variables, batch: Batch) -> Statistics:
        if "params" not in variables:
            text = "an evaluation step takes variables: pass {'params': parameters}"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            variables = {"params": variables}  # the former argument, for one release
        options: Any = {"compute_dtype": compute_dtype, "train": False}
        features, _ = compute_features(model, variables, batch, **options)
        predictions, _ = compute_predictions(model, variables, features, **options)
        statistics = compute_statistics(model, predictions, batch)
        return statistics if axis_name is None else _merge_devices(statistics, axis_name)

    return eval_step


def compute_statistics(model: Model, predictions: dict[str, Array], batch: Batch) -> Statistics:
    """Computes the statistics of predictions for a batch; see `make_eval_step`."""
    tasks = get_task_names(model)
    losses = sum_losses(model, predictions, batch, tasks)
    counts = count_labels(batch, tasks)
    targets = zero_missing_targets(batch)
    statistics: Statistics = {}
    for i, task in enumerate(tasks):
        head = model.heads[task]
        examples = jax.vmap(head.statistics)(predictions[task], targets[task])
        if getattr(head, "extra_metrics", None):
            examples["prediction"] = PerExample(predictions[task])
            examples["target"] = PerExample(targets[task])
        totals = _sum_over_examples(examples, batch.labeled[task])
        statistics[task] = totals | {"loss": losses[i], "examples": counts[i]}
    return statistics


def _sum_over_examples(examples: dict[str, Any], labeled: Array) -> dict[str, Any]:
    """Sums statistics [b ...] over labeled examples; marks the examples of those that are kept."""

    def total(x: Any) -> Any:
        return PerExample(x.values, labeled) if is_per_example(x) else sum_masked(x, labeled)

    return jax.tree.map(total, examples, is_leaf=is_per_example)


def _merge_devices(statistics: Statistics, axis_name: str) -> Statistics:
    """Sums over devices, and concatenates what is kept per example."""
    leaves, structure = jax.tree.flatten(statistics, is_leaf=is_per_example)
    sums = jax.lax.psum([x for x in leaves if not is_per_example(x)], axis_name)
    kept = [x for x in leaves if is_per_example(x)]
    gathered = iter(jax.lax.all_gather(kept, axis_name, tiled=True))
    summed = iter(sums)
    merged = [next(gathered) if is_per_example(x) else next(summed) for x in leaves]
    return dict(jax.tree.unflatten(structure, merged))


def merge_batches(statistics: Statistics) -> Statistics:
    """Merges statistics with a leading axis of batches: sums them, or joins their examples."""

    def merge(x: Any) -> Any:
        if is_per_example(x):
            return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), x)
        return x.sum(0)

    return jax.tree.map(merge, statistics, is_leaf=is_per_example)
