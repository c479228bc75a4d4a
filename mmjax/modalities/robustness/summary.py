"""Single numbers of a curve of a metric over levels: area, relative and effective robustness."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mmjax.intervals import compute_mean_interval
from mmjax.modalities.robustness.measure import Robustness, RobustnessCurve

_Values = Float[np.ndarray, "l s"]


class RobustnessSummary(NamedTuple):
    """Measures of one metric under one corruption: pairs (mean over seeds, half of the interval).

    Attributes:
      modality: the corrupted one, or "all".
      corruption: its name.
      metric: its name.
      clean: the metric at level 0.
      worst: the metric at the highest level.
      area: mean of the metric over the levels.
      relative: area / clean, or clean / area if lower is better: 1 means that nothing is lost.
      effective: what is lost less than by the baseline, in the unit of the metric; positive is
        better. None without a baseline.
    """

    modality: str
    corruption: str
    metric: str
    clean: tuple[float, float]
    worst: tuple[float, float]
    area: tuple[float, float]
    relative: tuple[float, float]
    effective: tuple[float, float] | None = None


def compute_area(levels: Sequence[float], values: _Values) -> Float[np.ndarray, " s"]:
    """Computes the mean of each seed's curve over the range of levels, by the trapezoidal rule.

    For levels from 0 to 1 it is the area under the curve: the relative robustness of Liang et al.,
    MultiBench, NeurIPS 2021 (arXiv:2107.07502).

    Example:
      >>> compute_area([0.0, 0.5, 1.0], np.array([[1.0], [1.0], [0.0]])).tolist()
      [0.75]
    """
    widths = np.diff(levels)[:, None]
    return (widths * (values[1:] + values[:-1]) / 2).sum(axis=0) / (levels[-1] - levels[0])


def compute_relative_robustness(
    levels: Sequence[float], values: _Values, *, maximize: bool
) -> Float[np.ndarray, " s"]:
    """Computes area / clean value, or clean value / area of a metric whose lower values are better.

    It is 1 if nothing is lost. It means little for metrics that may be negative, such as R², and is
    NaN where the denominator is 0.

    Example:
      >>> compute_relative_robustness([0.0, 1.0], np.array([[2.0], [6.0]]), maximize=False).tolist()
      [0.5]
    """
    area, clean = compute_area(levels, values), values[0]
    above, below = (area, clean) if maximize else (clean, area)
    return np.where(below == 0, np.nan, above / np.where(below == 0, 1, below))


def compute_effective_robustness(
    levels: Sequence[float],
    values: _Values,
    baseline: Float[np.ndarray, "l k"],
    *,
    maximize: bool,
    paired: bool,
) -> tuple[float, float]:
    """Computes how much less is lost than by a baseline, on average over levels, and its interval.

    Both curves are taken from their values at level 0, so that a better clean model has no
    advantage. Taori et al., NeurIPS 2020 (arXiv:2007.00644), whose baseline is fitted over many
    models; with one model as in MultiBench.

    Args:
      levels: the levels.
      values: of the model [levels seeds].
      baseline: of the baseline, which may have other seeds.
      maximize: whether higher values are better.
      paired: whether the seeds of both are the same, in the same order. The 95% interval is
        Student's t of the differences, or otherwise Welch's.

    Example:
      >>> levels, values, baseline = [0.0, 1.0], np.array([[0.9], [0.7]]), np.array([[0.8], [0.2]])
      >>> mean, half = compute_effective_robustness(
      ...     levels, values, baseline, maximize=True, paired=True)
      >>> print(f"{mean:.2f}")
      0.20
    """
    sign = 1 if maximize else -1
    first = sign * (compute_area(levels, values) - values[0])
    second = sign * (compute_area(levels, baseline) - baseline[0])
    if paired:
        return compute_mean_interval(first - second)
    mean = float(first.mean() - second.mean())
    if min(len(first), len(second)) < 2:
        return mean, float("nan")
    return mean, _compute_welch_half(first, second)


def _compute_welch_half(first: Float[np.ndarray, " s"], second: Float[np.ndarray, " k"]) -> float:
    """Computes half of Welch's 95% interval of a difference of means; 0 if nothing varies."""
    from scipy import stats

    # SciPy's own test warns where one sample hardly varies, as metrics of few examples do.
    errors = [sample.var(ddof=1) / len(sample) for sample in (first, second)]
    total = sum(errors)
    if total == 0:
        return 0.0
    freedom = total**2 / sum(
        error**2 / (len(sample) - 1) for error, sample in zip(errors, (first, second), strict=True)
    )
    return float(stats.t.ppf(0.975, freedom) * np.sqrt(total))


def summarize_robustness(
    robustness: Robustness,
    baseline: Robustness | None = None,
    metrics: Sequence[str] | None = None,
) -> list[RobustnessSummary]:
    """Summarizes every curve of some metrics.

    Intervals are 95%, Student's t over the training seeds (NaN for one); of the effective
    robustness paired by seed if the baseline has the same seeds, otherwise by Welch's t.

    Args:
      robustness: of the model.
      baseline: that of another model under the same conditions.
      metrics: None: the first of each task.

    Raises:
      ValueError: the baseline has other levels, or lacks a curve or a metric.
    """
    known = {} if baseline is None else _index_curves(robustness, baseline)
    summaries = []
    for curve in robustness.curves:
        for metric in robustness.main_metrics if metrics is None else metrics:
            values, maximize = curve.values[metric], robustness.directions[metric] == "max"
            levels, effective = robustness.levels, None
            if baseline is not None:
                effective = compute_effective_robustness(
                    levels,
                    values,
                    _get_metric(known[curve.modality, curve.corruption], metric),
                    maximize=maximize,
                    paired=baseline.seeds == robustness.seeds,
                )
            relative = compute_relative_robustness(levels, values, maximize=maximize)
            summaries.append(
                RobustnessSummary(
                    curve.modality,
                    curve.corruption,
                    metric,
                    compute_mean_interval(values[0]),
                    compute_mean_interval(values[-1]),
                    compute_mean_interval(compute_area(levels, values)),
                    compute_mean_interval(relative),
                    effective,
                )
            )
    return summaries


def _index_curves(
    robustness: Robustness, baseline: Robustness
) -> dict[tuple[str, str], RobustnessCurve]:
    """Indexes the baseline's curves; refuses those of other levels or conditions."""
    curves = {(curve.modality, curve.corruption): curve for curve in baseline.curves}
    missing = {(c.modality, c.corruption) for c in robustness.curves} - set(curves)
    if missing or baseline.levels != robustness.levels:
        raise ValueError(
            "the baseline was measured at other levels or under other conditions; measure both "
            "with the same arguments."
        )
    return curves


def _get_metric(curve: RobustnessCurve, metric: str) -> _Values:
    if metric not in curve.values:
        raise ValueError(f"the baseline has no metric {metric!r}, only {sorted(curve.values)}.")
    return curve.values[metric]
