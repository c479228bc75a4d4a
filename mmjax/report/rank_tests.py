"""Ranks of arms and Δm, over seeds or folds.

**Blocks** of ranks are seeds, or folds. Tasks × seeds are not valid blocks: all tasks of a seed
come from one network, so they are not independent, and treating them as such finds false
differences. To rank over several tasks, give `compute_ranks` the mean over the tasks of the ranks
within each seed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from mmjax.report.statistics import SIGNIFICANCE_LEVEL, compute_intervals


class Ranks(NamedTuple):
    """Arms ranked within each seed or fold; rank 1 is best.

    Attributes:
      mean: mean rank of each arm.
      p: p-value of Friedman's test that all arms are equal.
      critical: smallest significant difference of two mean ranks (Nemenyi).
      blocks: number of seeds, or folds, that all arms have in common.
    """

    mean: Float[np.ndarray, " a"]
    p: float
    critical: float
    blocks: int


def compute_ranks(values: Float[np.ndarray, "a s"], *, maximize: bool) -> Ranks:
    """Ranks the arms within each seed that all of them have, and tests whether they differ.

    Friedman's p-value uses the χ² approximation, which is conservative for few seeds (for five
    seeds and 4 to 16 arms it finds 3% false differences, not 5%), and so is Nemenyi's difference.
    Source: Demšar, JMLR 2006.

    Raises:
      ValueError: there are fewer than three arms or fewer than two common seeds.
    """
    common = values[:, ~np.isnan(values).any(axis=0)]
    arms, blocks = common.shape
    if arms < 3 or blocks < 2:
        raise ValueError(
            f"Ranks need at least 3 arms and 2 seeds that all arms have; there are {arms} and "
            f"{blocks}."
        )
    seed_ranks = rank_within_seeds(common, maximize=maximize)
    all_tied = (seed_ranks == seed_ranks[0]).all()  # Friedman's statistic would be 0 / 0
    p = 1.0 if all_tied else float(stats.friedmanchisquare(*seed_ranks).pvalue)
    # Nemenyi: q (k (k + 1) / (6 N))^(1/2) for k arms and N blocks, where q is the quantile of the
    # studentized range over 2^(1/2).
    studentized = stats.studentized_range.isf(SIGNIFICANCE_LEVEL, arms, np.inf) / np.sqrt(2)
    critical = studentized * np.sqrt(arms * (arms + 1) / (6 * blocks))
    return Ranks(seed_ranks.mean(axis=1), p, float(critical), blocks)


def rank_within_seeds(
    values: Float[np.ndarray, "a s"], *, maximize: bool
) -> Float[np.ndarray, "a s"]:
    """Ranks the arms within each seed; 1 is best, ties get their mean rank, NaN stays NaN."""
    return stats.rankdata(-values if maximize else values, axis=0, nan_policy="omit")


def find_cliques(mean: Float[np.ndarray, " a"], critical: float) -> list[tuple[float, float]]:
    """Returns the widest ranges of mean ranks in which no two of the arms differ significantly.

    Example:
      >>> find_cliques(np.array([1.2, 1.9, 3.5]), critical=1.0)
      [(1.2, 1.9)]
    """
    ordered = np.sort(mean)
    # The worst arm that is still within the critical difference of each arm.
    last = np.searchsorted(ordered, ordered + critical, side="right") - 1
    # A range that ends where an earlier one ends lies inside of it.
    cliques = []
    for i, j in enumerate(last):
        if j > i and (i == 0 or j > last[i - 1]):
            cliques.append((float(ordered[i]), float(ordered[j])))
    return cliques


def delta_m(
    values: Float[np.ndarray, "t a s"],
    single: Float[np.ndarray, "t s"],
    maximize: Sequence[bool],
) -> Float[np.ndarray, "a s"]:
    """Computes Δm in percent per seed: the mean over tasks of the relative gain over single tasks.

    Positive gains are improvements, whatever the direction of the metric. The gain of a seed is its
    difference to the single-task arm of the same seed, divided by the mean of that arm, so that the
    mean over seeds is the published measure and its interval includes the baseline's variation.
    Source: Maninis et al., CVPR 2019, arXiv:1904.08918.

    Args:
      values: the metric of each task, arm and seed.
      single: the metric of each task's single-task arm and seed.
      maximize: per task, whether larger values are better.

    Raises:
      ValueError: the mean of a single-task arm is not positive.
    """
    means, _ = compute_intervals(single)
    if not (means > 0).all():
        raise ValueError(
            f"The means of the single-task arms are {means.round(4).tolist()}, but Δm needs "
            "positive ones. Choose a metric such as an error or an accuracy for that task."
        )
    signs = np.where(np.asarray(maximize), 1.0, -1.0)
    gains = (values - single[:, None]) / means[:, None, None] * signs[:, None, None]
    return 100 * gains.mean(axis=0)
