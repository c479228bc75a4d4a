"""The statistics of a study, on SciPy: intervals, tests, the best, ranks and Δm.

Values are arrays [arms seeds] with NaN where a seed was not run. A seed is the unit of all that is
claimed here: the same data set and protocol, another training.

**Intervals** are Student's t, not a bootstrap: with the few seeds of this field the bootstrap's
intervals are far too short. Share of 95% intervals that hold
the mean, in percent (10,000 simulated studies each, Monte Carlo error 0.2; 999 resamples):

    values      seeds   Student t   percentile   BCa   bootstrap-t
    normal          3        95.1         74.7  72.3          99.7 (endless)
                    5        95.0         82.9  82.8          94.5
                   10        94.8         90.1  89.9          94.7
                   20        95.2         92.8  92.8          95.0
    log-normal      3        93.0         72.3  70.2          99.8 (endless)
                    5        91.3         80.5  81.1          93.2
                   10        92.3         87.7  88.1          93.8
                   20        93.3         91.1  91.2          94.3
    accuracy        3        92.9         72.7  70.7          99.8 (endless)
    near 0.97       5        92.5         81.0  81.5          93.8
                   10        92.8         88.2  88.5          93.9
                   20        93.8         91.8  91.8          94.4

The bootstrap-t covers a little better where values are skewed, by intervals a third wider at five
seeds, and at three seeds they are without end. No method covers where one training in ten fails
(Student t 46 at five seeds, bootstrap-t 57): look at the seeds.

**Tests** are paired over the common seeds, two-sided, by Student's t. Wilcoxon's and the sign-flip
test cannot fall below p = 0.0625 with five seeds. A test needs two seeds, and differences that
differ.

**Blocks** of ranks are seeds. Tasks × seeds are no blocks: one network gives all tasks of a seed,
so that they are not independent, and counting them as if they were makes chance significant. To
rank over several tasks, give `ranks` the mean over the tasks of the ranks within each seed.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

LEVEL = 0.05


class Comparison(NamedTuple):
    """Arms against a baseline.

    Attributes:
      seeds: how many seeds each arm has in common with it.
      difference: mean of arm - baseline over them.
      half: half the width of the 95% interval of that.
      p: of the two-sided paired test; NaN where there is no test.
      holm: the same after Holm's correction for the number of arms tested.
    """

    seeds: np.ndarray
    difference: Float[np.ndarray, " a"]
    half: Float[np.ndarray, " a"]
    p: Float[np.ndarray, " a"]
    holm: Float[np.ndarray, " a"]


class Ranks(NamedTuple):
    """Arms ranked within each seed; rank 1 is best.

    Attributes:
      mean: mean rank of each arm.
      p: of Friedman's test that all arms are alike.
      critical: least difference of two mean ranks that is significant (Nemenyi).
      blocks: how many seeds all arms have in common.
    """

    mean: Float[np.ndarray, " a"]
    p: float
    critical: float
    blocks: int


def intervals(values: Float[np.ndarray, "a s"]) -> tuple[Float[np.ndarray, " a"], ...]:
    """Means and half widths of the 95% intervals, by Student's t.

    The mean of no seed and the half width of fewer than two are NaN.
    """
    n = _counts(values).astype(np.float64)
    some, several = np.maximum(n, 1), np.maximum(n, 2)
    means = np.where(n > 0, np.nansum(values, axis=-1) / some, np.nan)
    squares = np.nansum((values - means[:, None]) ** 2, axis=-1)
    errors = np.sqrt(squares / (several - 1) / several)
    halves = stats.t.ppf(1 - LEVEL / 2, several - 1) * errors
    return means, np.where(n > 1, halves, np.nan)


def compare(values: Float[np.ndarray, "a s"], baseline: Float[np.ndarray, " s"]) -> Comparison:
    """Tests each arm against the baseline on common seeds, with Holm's correction over the arms.

    The chance that any arm that is like the baseline is called different is 5% at most.
    """
    differences = values - baseline
    p = paired(differences)
    means, halves = intervals(differences)
    return Comparison(_counts(differences), means, halves, p, holm(p))


def paired(
    differences: Float[np.ndarray, "*k s"],
    alternative: Literal["two-sided", "greater"] = "two-sided",
) -> Float[np.ndarray, "*k"]:
    """The p of Student's t-test that the mean of the differences, over the last axis, is 0.

    It is 1 where all are 0, and NaN where there are fewer than two or all are the same other
    number: nothing tells then how far they spread.
    """
    p = np.full(differences.shape[:-1], np.nan)
    some = _counts(differences) > 1
    known = differences[some]
    largest = np.nanmax(np.abs(known), axis=-1, initial=0)
    spread = np.nanmax(known, axis=-1, initial=-np.inf) - np.nanmin(known, axis=-1, initial=np.inf)
    varies = spread > 1e-9 * largest
    found = np.where(largest == 0, 1.0, np.nan)
    if varies.any():
        found[varies] = stats.ttest_1samp(
            known[varies], 0.0, axis=-1, nan_policy="omit", alternative=alternative
        ).pvalue
    p[some] = found
    return p


def holm(p: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Holm's correction over the tests that there are; NaN stays NaN.

    Source: Holm, Scandinavian Journal of Statistics 1979.
    """
    order = np.argsort(p)[: _counts(p)]  # NaN comes last
    left = np.arange(len(order), 0, -1)
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(left * p[order]), 1)
    return corrected


def best(values: Float[np.ndarray, "a s"], *, maximize: bool) -> Bool[np.ndarray, " a"]:
    """The arms that the one with the best mean is not significantly better than, itself included.

    One-sided paired tests with Holm's correction over the arms; an arm of fewer than two seeds is
    out. The correction makes up for the one on top having been chosen among many: the truly best
    arm, and each that equals it, is in with a probability of 95% (simulated: 94 to 99%, over 3 to
    10 seeds, 4 to 40 arms of equal and of unequal spread, of which 2 to all are tied). All tied
    arms together are in with a smaller one (of 4 arms 87%, of 16 76%, five seeds): being out says
    little where many are about as good.
    """
    signed = values if maximize else -values
    there = _counts(values) > 1
    if not there.any():
        return there
    means, _ = intervals(signed)
    top = np.argmax(np.where(there, means, -np.inf))
    p = paired(signed[top] - signed, "greater")
    p[top] = np.nan
    return there & ~(holm(p) <= LEVEL)


def ranks(values: Float[np.ndarray, "a s"], *, maximize: bool) -> Ranks:
    """Ranks the arms within each seed that all of them have, and tests whether they differ.

    Friedman's p is that of the χ² approximation and errs to the safe side with few seeds (at five
    seeds and 4 to 16 arms it finds 3% false differences, not 5%); Nemenyi's difference likewise.
    Source: Demšar, JMLR 2006.

    Raises:
      ValueError: there are fewer than three arms or two common seeds.
    """
    common = values[:, ~np.isnan(values).any(axis=0)]
    arms, blocks = common.shape
    if arms < 3 or blocks < 2:
        raise ValueError(
            f"Ranks need at least 3 arms and 2 seeds that all arms have; there are {arms} and "
            f"{blocks}."
        )
    each = within(common, maximize=maximize)
    tied = (each == each[0]).all()
    p = 1.0 if tied else float(stats.friedmanchisquare(*each).pvalue)
    studentized = stats.studentized_range.isf(LEVEL, arms, np.inf) / np.sqrt(2)
    critical = studentized * np.sqrt(arms * (arms + 1) / (6 * blocks))
    return Ranks(each.mean(axis=1), p, float(critical), blocks)


def within(values: Float[np.ndarray, "a s"], *, maximize: bool) -> Float[np.ndarray, "a s"]:
    """Ranks of the arms within each seed; 1 is best, ties share their mean rank, NaN has none."""
    return stats.rankdata(-values if maximize else values, axis=0, nan_policy="omit")


def cliques(mean: Float[np.ndarray, " a"], critical: float) -> list[tuple[float, float]]:
    """The widest ranges of mean ranks, of two arms or more, in which none differ significantly."""
    ordered = np.sort(mean)
    last = np.searchsorted(ordered, ordered + critical, side="right") - 1
    widest = [(i, j) for i, j in enumerate(last) if j > i and (i == 0 or j > last[i - 1])]
    return [(float(ordered[i]), float(ordered[j])) for i, j in widest]


def delta_m(
    values: Float[np.ndarray, "t a s"],
    single: Float[np.ndarray, "t s"],
    maximize: Sequence[bool],
) -> Float[np.ndarray, "a s"]:
    """Δm in percent, a seed: the mean over tasks of the relative gain over a single-task arm.

    A gain is counted so that more is better, whatever the direction of the metric. Each seed's is
    its difference to the single-task arm of the same seed over the mean of that arm, so that the
    mean over seeds is the published measure and its interval knows that the baseline varies too.
    Source: Maninis et al., CVPR 2019, arXiv:1904.08918.

    Raises:
      ValueError: a single-task arm's mean is not positive, so that no gain is relative to it.
    """
    means, _ = intervals(single)
    if not (means > 0).all():
        raise ValueError(
            f"The single-task arms have means {means.round(4).tolist()}; Δm needs positive ones. "
            "Choose a metric such as an error or an accuracy for that task."
        )
    signs = np.where(np.asarray(maximize), 1.0, -1.0)
    gains = (values - single[:, None]) / means[:, None, None] * signs[:, None, None]
    return 100 * gains.mean(axis=0)


def _counts(values: np.ndarray) -> np.ndarray:
    """How many along the last axis are not NaN."""
    return np.asarray((~np.isnan(values)).sum(axis=-1))
