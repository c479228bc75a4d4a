"""User-defined metrics: functions that declare whether higher or lower values are better."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

Better = Literal["max", "min"]
Metric = Callable[..., float]
"""(prediction [n ...], target [n ...]) -> number, for NumPy arrays of the labeled examples."""


def higher_is_better(function: Metric) -> Metric:
    """Marks a metric whose higher values are better.

    Example:
      >>> @higher_is_better
      ... def share_within_one(prediction, target):
      ...     return float(np.mean(np.abs(prediction - target) < 1))
      >>> get_direction(share_within_one)
      'max'
    """
    return declare_metric("max")(function)


def lower_is_better(function: Metric) -> Metric:
    """Marks a metric whose lower values are better, such as an error.

    Example:
      >>> @lower_is_better
      ... def worst_error(prediction, target):
      ...     return float(np.abs(prediction - target).max(initial=0))
      >>> get_direction(worst_error)
      'min'
    """
    return declare_metric("min")(function)


def declare_metric(
    better: Better, *kinds: str, tune: Callable[..., Any] | None = None
) -> Callable[[Metric], Metric]:
    """Makes a decorator that marks a metric.

    Args:
      better: whether its maximum or its minimum is best.
      kinds: kinds of tasks that it is for, as in `mmjax.data.dataset.Task`; () for any.
      tune: (prediction, target) -> settings, called with the validation split; the metric gets
        them as its third argument, on every split.

    Example:
      >>> @declare_metric("min", "regression")
      ... def bias(prediction, target):
      ...     return float(np.mean(prediction - target))
      >>> bias.kinds
      ('regression',)
    """

    def mark(function: Metric) -> Metric:
        function.better, function.kinds, function.tune = better, kinds, tune  # type: ignore
        return function

    return mark


def _find_attribute(metric: Metric, name: str) -> Any:
    """Returns what a metric declares, also through `functools.partial`; None if it does not."""
    # A partial does not inherit the attributes of its function, but may have its own.
    while isinstance(metric, functools.partial) and not hasattr(metric, name):
        metric = metric.func
    return getattr(metric, name, None)


def get_direction(metric: Metric) -> Better | None:
    """Returns whether the maximum or the minimum of a metric is best; None if undeclared."""
    better: Better | None = _find_attribute(metric, "better")
    return better


def get_tuning(metric: Metric) -> Callable[..., Any] | None:
    """Returns the function that tunes a metric on the validation split; None if there is none."""
    tune: Callable[..., Any] | None = _find_attribute(metric, "tune")
    return tune


def check_extra_metrics(
    task: str, kind: str, metrics: Mapping[str, Any], taken: Mapping[str, Better]
) -> None:
    """Refuses metrics that an evaluation cannot compute, before training.

    Args:
      task: name of the task, for messages.
      kind: kind of the task.
      metrics: {name: function}.
      taken: the names of the head's own metrics.

    Raises:
      ValueError: naming the metric and the fix.
    """
    for name, metric in metrics.items():
        what = f"extra_metrics[{name!r}] of task {task!r}"
        if not callable(metric):
            raise ValueError(f"{what} is {metric!r}; it must be a function.")
        if name in taken or name == "loss" or not name or "/" in name:
            raise ValueError(
                f"{what} cannot have that name, which must not be empty, contain a slash, or be "
                f"one of {sorted({*taken, 'loss'})}; rename it."
            )
        if get_direction(metric) not in ("max", "min"):
            raise ValueError(
                f"{what} does not say which direction is better; decorate the function with "
                "@mmjax.metrics.higher_is_better or @mmjax.metrics.lower_is_better."
            )
        kinds = _find_attribute(metric, "kinds")
        if kinds and kind not in kinds:
            raise ValueError(f"{what} is for {', '.join(kinds)}, but the task is a {kind}.")


def compute_extra_metrics(
    metrics: Mapping[str, Metric],
    prediction: np.ndarray,
    target: np.ndarray,
    settings: Mapping[str, Any],
) -> dict[str, float]:
    """Computes metrics of the labeled examples; NaN if there are none.

    Args:
      metrics: {name: function}.
      prediction: [n ...] of the labeled examples.
      target: [n ...].
      settings: {name: what `tune_extra_metrics` returned} for the metrics that are tuned.

    Raises:
      ValueError: naming the metric, if it fails or does not return a number.
    """
    values = {}
    for name, metric in metrics.items():
        extra = (settings[name],) if name in settings else ()
        if not len(target):
            values[name] = float("nan")
            continue
        try:
            values[name] = float(metric(prediction, target, *extra))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"The metric {name!r} failed for predictions {list(prediction.shape)} and targets "
                f"{list(target.shape)}: {error}"
            ) from error
    return values


def tune_extra_metrics(
    metrics: Mapping[str, Metric], prediction: np.ndarray, target: np.ndarray
) -> dict[str, Any]:
    """Tunes the metrics that need it on the validation split's labeled examples."""
    return {
        name: tune(prediction, target)
        for name, metric in metrics.items()
        if (tune := get_tuning(metric)) is not None
    }
