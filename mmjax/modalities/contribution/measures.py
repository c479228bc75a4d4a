"""All measures of contribution from the metrics of subsets, of permutations and of EMAP."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax.intervals import compute_mean_interval
from mmjax.modalities.contribution.shapley import (
    compute_conditional_utilization,
    compute_interaction_indices,
    compute_intershap,
    compute_shapley_values,
)
from mmjax.modalities.subsets import make_all_subsets, name_subset

Key = tuple[str, str]
"""(measure, what it is of): a subset, a modality, or a pair as "a+b"."""


class MetricSources(NamedTuple):
    """One metric of one model, as the measures need it.

    Attributes:
      subsets: its values for all 2^M subsets, in the order of `make_all_subsets`.
      permuted: {modality: its value with the modality permuted over the examples}.
      sample: its value on the sample of EMAP.
      additive: its value on the sample for the additive part of the model.
      probes: {modality: its value for a linear probe of the modality's encoder}.
    """

    subsets: np.ndarray
    permuted: Mapping[str, float]
    sample: float
    additive: float
    probes: Mapping[str, float]


class Estimate(NamedTuple):
    """A measure with its intervals.

    Attributes:
      mean: mean over the seeds.
      half: half the 95% interval over the seeds (Student's t); NaN for one seed.
      low: lower end of the 95% interval over the examples (bootstrap of the mean over the seeds).
      high: its upper end.
      seeds: the values by seed.
    """

    mean: float
    half: float
    low: float
    high: float
    seeds: tuple[float, ...]


def compute_measures(
    sources: MetricSources, modalities: Sequence[str], *, maximize: bool
) -> dict[Key, float]:
    """Computes every measure of one metric.

    "subset", "additive" and "probe" are values of the metric itself. In all others more is better,
    whatever the metric: for an error, they are of its negative.

    Args:
      sources: the values of the metric.
      modalities: names of the modalities, sorted.
      maximize: whether a higher value of the metric is better.

    Example:
      >>> values = MetricSources(np.array([0.5, 1.0, 0.5, 1.0]), {"a": 0.5, "b": 1.0}, 1.0, 1.0, {})
      >>> measures = compute_measures(values, ["a", "b"], maximize=True)
      >>> float(measures["shapley", "a"]), float(measures["permutation", "b"])
      (0.5, 0.0)
    """
    sign = 1.0 if maximize else -1.0
    game, measures = sign * sources.subsets, dict[Key, float]()
    for subset, value in zip(make_all_subsets(len(modalities)), sources.subsets, strict=True):
        measures["subset", name_subset(subset, modalities)] = value
    utilization = compute_conditional_utilization(game)
    for i, m in enumerate(modalities):
        measures["shapley", m] = compute_shapley_values(game)[i]
        measures["utilization", m] = utilization[i]
        if m in sources.permuted:
            measures["permutation", m] = game[-1] - sign * sources.permuted[m]
        if m in sources.probes:
            measures["probe", m] = sources.probes[m]
    indices = compute_interaction_indices(game)
    for i, j in itertools.combinations(range(len(modalities)), 2):
        # Both halves of a pair: the matrix has one on either side of its diagonal.
        measures["interaction", f"{modalities[i]}+{modalities[j]}"] = 2 * indices[i, j]
    measures["intershap", ""] = float(compute_intershap(game))
    if not np.isnan(sources.additive):
        measures["additive", ""] = sources.additive
        measures["additive gap", ""] = sign * (sources.sample - sources.additive)
    return measures


def estimate_measures(
    seeds: Sequence[Mapping[Key, float]], resamples: Sequence[Sequence[Mapping[Key, float]]]
) -> dict[Key, Estimate]:
    """Joins the measures of all seeds with their intervals.

    Args:
      seeds: the measures by seed.
      resamples: those of bootstrap samples of the examples: by sample, by seed.
    """
    estimates = {}
    for key in seeds[0]:
        values = np.array([measures[key] for measures in seeds], np.float64)
        drawn = [np.mean([measures[key] for measures in sample]) for sample in resamples]
        # A metric may be undefined for a resample, such as R² if all targets are equal.
        known = [value for value in drawn if not np.isnan(value)]
        low, high = np.quantile(known, [0.025, 0.975]) if known else (np.nan, np.nan)
        mean, half = compute_mean_interval(values)
        estimates[key] = Estimate(mean, half, float(low), float(high), tuple(values.tolist()))
    return estimates


def group_by_measure(estimates: Mapping[Key, Estimate]) -> dict[str, dict[str, Any]]:
    """Groups estimates as {measure: {what it is of: estimate}}.

    Example:
      >>> group_by_measure({("shapley", "a"): Estimate(1.0, 0.1, 0.8, 1.2, (1.0,))})["shapley"]
      {'a': Estimate(mean=1.0, half=0.1, low=0.8, high=1.2, seeds=(1.0,))}
    """
    groups: dict[str, dict[str, Any]] = {}
    for (measure, name), estimate in estimates.items():
        groups.setdefault(measure, {})[name] = estimate
    return groups
