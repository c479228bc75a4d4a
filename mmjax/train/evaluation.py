"""Metrics of every replica from the statistics of a split."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmjax.metrics.direction import (
    compute_extra_metrics,
    get_direction,
    get_tuning,
    tune_extra_metrics,
)
from mmjax.metrics.statistics import is_per_example
from mmjax.model import Model
from mmjax.train.steps.forward import get_task_names

MetricValues = dict[str, float]
SplitStatistics = Mapping[str, Mapping[str, Any]]
"""{task: {statistic: NumPy array or `PerExample` of arrays}} of a whole split."""
MetricSettings = Mapping[str, Mapping[str, Any]]
"""{task: {tuned metric: what it learned from the validation split}}."""


def merge_dispatches(*parts: Any) -> Any:
    """Adds sums [s ...], in float64; concatenates what is kept per example [s n ...]."""
    if is_per_example(parts[0]):
        return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts)
    # float64, since sums of float32 over many dispatches lose digits.
    return np.sum([np.asarray(x, np.float64) for x in parts], axis=0)


def summarize_replicas(
    models: Sequence[Model],
    statistics: Sequence[SplitStatistics],
    collect_validation: Callable[[], Sequence[SplitStatistics]],
) -> list[MetricValues]:
    """Returns the metrics of every replica's statistics; see `summarize_statistics`.

    Metrics that are tuned, such as those with thresholds, are tuned on the validation split.

    Args:
      models: one per replica.
      statistics: those of a split.
      collect_validation: returns those of the validation split; only called if a metric is tuned.
    """
    settings: list[MetricSettings] = [{} for _ in models]
    if _has_tuned_metric(models[0]):
        settings = list(map(tune_metrics, models, collect_validation()))
    return list(map(summarize_statistics, models, statistics, settings))


def _has_tuned_metric(model: Model) -> bool:
    """Returns whether a metric learns something from the validation split."""
    for head in model.heads.values():
        for metric in getattr(head, "extra_metrics", {}).values():
            if get_tuning(metric) is not None:
                return True
    return False


def tune_metrics(model: Model, validation: SplitStatistics) -> MetricSettings:
    """Returns what the tasks' extra metrics learn from the statistics of the validation split."""
    settings = {}
    for task, head in model.heads.items():
        if metrics := getattr(head, "extra_metrics", None):
            values = (validation[task][name].select() for name in ("prediction", "target"))
            settings[task] = tune_extra_metrics(metrics, *values)
    return settings


def summarize_statistics(
    model: Model, statistics: SplitStatistics, settings: MetricSettings | None = None
) -> MetricValues:
    """Returns the metrics {"TASK/METRIC": value} from the statistics of a split.

    "TASK/loss" is the mean over the task's labeled examples, "loss" the mean over tasks, and
    "mean/METRIC" the mean of a metric that all tasks have. A task without any label in the split
    has NaN metrics.

    Args:
      model: the `summary` of its heads makes metrics of their statistics.
      statistics: those of the split.
      settings: {task: {tuned metric: what it learned from the validation split}}.
    """
    metrics: MetricValues = {}
    for task in get_task_names(model):
        head, values = model.heads[task], dict(statistics[task])
        loss, examples = float(values.pop("loss")), float(values.pop("examples"))
        metrics[f"{task}/loss"] = loss / examples if examples else float("nan")
        summary = dict(head.summary(values))
        if extra := getattr(head, "extra_metrics", None):
            arrays = values["prediction"].select(), values["target"].select()
            summary |= compute_extra_metrics(extra, *arrays, (settings or {}).get(task, {}))
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
        known |= {f"{task}/{m}": d for m, d in _list_head_metrics(model.heads[task]).items()}
    return known | {f"mean/{name}": "max" for name in _list_common_metrics(model)}


def _list_head_metrics(head: Any) -> dict[str, Any]:
    """Returns {metric: direction} of a head's own metrics and its extra ones."""
    extra = getattr(head, "extra_metrics", {})
    return {**head.metrics, **{name: get_direction(metric) for name, metric in extra.items()}}


def _list_common_metrics(model: Model) -> list[str]:
    """Returns the metrics that all of several tasks have, whose mean is a metric too.

    Errors, of which lower is better, are left out: they have the units of their tasks.
    """
    first, *others = [_list_head_metrics(head) for head in model.heads.values()]
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
