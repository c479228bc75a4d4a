"""Evaluation of every replica's parameters on one split."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmjax.data.batch_order import make_eval_indices
from mmjax.data.pipeline import Feed, ProcessShare
from mmjax.model import Model
from mmjax.train.hardware.parallel import EvalProgram
from mmjax.train.steps.forward import get_task_names

MetricValues = dict[str, float]


def evaluate_split(
    models: Sequence[Model],
    program: EvalProgram,
    feed: Feed,
    variables: Any,
    *,
    share: ProcessShare,
    examples: int,
    batch_size: int,
    batches: int,
) -> list[MetricValues]:
    """Returns the metrics {"TASK/METRIC": value} over a whole split, one dictionary per replica.

    "TASK/loss" is the mean over the task's labeled examples, "loss" the mean over tasks, and
    "mean/METRIC" the mean of a metric that all tasks have. A task without any label in the split
    has NaN metrics.

    Args:
      models: one per replica; the `summary` of their heads makes metrics of statistics.
      program: made by `mmjax.train.hardware.parallel.make_eval_program`.
      feed: brings the split to the devices.
      variables: the program's first argument, with a leading axis of replicas.
      share: this process's part of every batch.
      examples: size of the split.
      batch_size: examples per batch, over all devices.
      batches: maximum number of batches per dispatch.
    """
    chunks = make_eval_indices(examples, batch_size, batches)
    plan = [indices[None] for indices, _ in chunks]
    total = None
    for (data, indices), (_, valid) in zip(feed.chunks(plan), chunks, strict=True):
        indices = np.repeat(indices, len(models), axis=1)
        real = np.repeat(share.of(valid[None]), len(models), axis=1)
        sums = jax.device_get(program(variables, data, indices, real))
        # float64, since sums of float32 over many dispatches lose digits.
        sums = jax.tree.map(lambda x: np.asarray(x, np.float64), sums)
        total = sums if total is None else jax.tree.map(np.add, total, sums)
    return [
        summarize_statistics(model, jax.tree.map(lambda x, i=i: x[i], total))
        for i, model in enumerate(models)
    ]


def summarize_statistics(
    model: Model, statistics: Mapping[str, Mapping[str, np.ndarray | np.floating]]
) -> MetricValues:
    """Returns the metrics from the statistics of a split; see `evaluate_split`."""
    metrics: MetricValues = {}
    for task in get_task_names(model):
        sums = dict(statistics[task])
        loss, examples = float(sums.pop("loss")), float(sums.pop("examples"))
        metrics[f"{task}/loss"] = loss / examples if examples else float("nan")
        summary = model.heads[task].summary(sums)
        metrics |= {f"{task}/{name}": float(value) for name, value in summary.items()}
    for name in _list_common_metrics(model):
        metrics[f"mean/{name}"] = float(np.mean([metrics[f"{t}/{name}"] for t in model.heads]))
    losses = [metrics[f"{task}/loss"] for task in get_task_names(model)]
    return metrics | {"loss": float(np.mean(losses))}


def get_metric_directions(model: Model) -> dict[str, str]:
    """Returns {metric: "max" or "min"} of "loss", each task's "TASK/METRIC", and "mean/METRIC"."""
    known = {"loss": "min"}
    for task in get_task_names(model):
        known[f"{task}/loss"] = "min"
        known |= {f"{task}/{m}": d for m, d in model.heads[task].metrics.items()}
    return known | {f"mean/{name}": "max" for name in _list_common_metrics(model)}


def _list_common_metrics(model: Model) -> list[str]:
    """Returns the metrics that all of several tasks have, whose mean is a metric too.

    Errors, of which lower is better, are left out: they have the units of their tasks.
    """
    first, *others = [head.metrics for head in model.heads.values()]
    if not others or "mean" in model.heads:
        return []
    return [m for m in first if all(head.get(m) == "max" for head in (first, *others))]


def is_higher_better(model: Model, monitor: str) -> bool:
    """Returns whether a higher value of the monitored metric is better.

    Raises:
      ValueError: if there is no such metric; the message lists all metrics.
    """
    known = get_metric_directions(model)
    if monitor not in known:
        raise ValueError(f"monitor is {monitor!r}; it must be one of {sorted(known)}.")
    return known[monitor] == "max"
