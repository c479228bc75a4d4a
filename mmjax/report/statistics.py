"""Statistics of studies, based on SciPy: intervals, tests, the best arms, ranks and Δm.

Values are arrays [arms seeds], NaN if a seed was not run. A seed is the unit of every statement:
the same data set and protocol, another training.

**Folds.** In a study with folds the values are arrays [arms folds], means over the seeds, and a
fold is the unit: another test and training split of the same examples. Differences are paired
within each fold and seed, because every arm has the same ones. The training splits of folds
overlap, so their values are not independent: intervals and t-tests take `overlap`, the number of
test examples per training example, and the variance of a mean is s² (1 / folds + overlap) instead
of s² / folds. Source: Nadeau and Bengio, Machine Learning 2003 (the corrected resampled t-test).
Percentage of false differences at 5% between two arms that are equally good over data sets (linear
regressions on 80% of the training examples, drawn by the seed; 3,000 simulated studies each, Monte
Carlo error 0.4; Friedman's test is of four arms, and its blocks are folds):

    examples  folds  seeds   all folds and seeds   means of folds   corrected   Friedman
          50      3      2                  23.5              6.0         1.4        3.6
         100      5      3                  33.3              5.5         1.3        5.2
         100     10      3                  29.6              5.3         0.6        4.9
         400      5      5                  44.5              5.1         1.0        3.3

These learners are stable; the correction is for those that are not.

**Intervals** are Student's t rather than a bootstrap, whose intervals are far too short for the few
seeds that are usual. Percentage of 95% intervals that contain the mean (10,000 simulated studies
each, Monte Carlo error 0.2; 999 resamples):

    values      seeds   Student t   percentile   BCa   bootstrap-t
    normal          3        95.1         74.7  72.3          99.7 (infinite)
                    5        95.0         82.9  82.8          94.5
                   10        94.8         90.1  89.9          94.7
                   20        95.2         92.8  92.8          95.0
    log-normal      3        93.0         72.3  70.2          99.8 (infinite)
                    5        91.3         80.5  81.1          93.2
                   10        92.3         87.7  88.1          93.8
                   20        93.3         91.1  91.2          94.3
    accuracy        3        92.9         72.7  70.7          99.8 (infinite)
    near 0.97       5        92.5         81.0  81.5          93.8
                   10        92.8         88.2  88.5          93.9
                   20        93.8         91.8  91.8          94.4

The bootstrap-t covers skewed values slightly better, with intervals that are a third wider for five
seeds and infinite for three. No method covers the case in which one training in ten fails
(Student t 46 for five seeds, bootstrap-t 57): inspect the seeds.

**Tests** are two-sided paired t-tests over the common seeds. Wilcoxon's test and the sign-flip test
cannot reach p < 0.0625 with five seeds. A test needs two seeds whose differences are not equal.

For ranks and Δm see `mmjax.report.rank_tests`.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

SIGNIFICANCE_LEVEL = 0.05


class Comparison(NamedTuple):
    """Comparison of arms with a baseline.

    Attributes:
      seeds: number of seeds, or of folds, that each arm has in common with the baseline.
      difference: mean of arm - baseline over the common ones.
      half: half the width of the 95% interval of the difference.
      p: p-value of the two-sided paired test; NaN if it cannot be computed.
      holm: the same after Holm's correction for the number of arms.
    """

    seeds: np.ndarray
    difference: Float[np.ndarray, " a"]
    half: Float[np.ndarray, " a"]
    p: Float[np.ndarray, " a"]
    holm: Float[np.ndarray, " a"]


def compute_intervals(
    values: Float[np.ndarray, "a s"], overlap: float = 0.0
) -> tuple[Float[np.ndarray, " a"], ...]:
    """Computes means and half widths of the 95% intervals, by Student's t.

    The mean of no seed and the half width for fewer than two seeds are NaN.

    Args:
      values: of each arm and seed, or each arm and fold.
      overlap: test examples per training example, if the values are those of folds; else 0.

    Example:
      >>> mean, half = compute_intervals(np.array([[0.9, 0.8, 0.85]]))
      >>> print(f"{mean[0]:.3f} ± {half[0]:.3f}")
      0.850 ± 0.124
    """
    n = _count_values(values).astype(np.float64)
    # Clamped counts keep the arithmetic free of divisions by zero; those entries become NaN below.
    at_least_one, at_least_two = np.maximum(n, 1), np.maximum(n, 2)
    means = np.where(n > 0, np.nansum(values, axis=-1) / at_least_one, np.nan)
    squares = np.nansum((values - means[:, None]) ** 2, axis=-1)
    # Standard error of the mean, s (1 / n + overlap)^(1/2); with overlap 0, Student's s / n^(1/2).
    errors = np.sqrt(squares / (at_least_two - 1) * (1 / at_least_two + overlap))
    halves = stats.t.ppf(1 - SIGNIFICANCE_LEVEL / 2, at_least_two - 1) * errors
    return means, np.where(n > 1, halves, np.nan)


def compare_with_baseline(
    values: Float[np.ndarray, "a s"], baseline: Float[np.ndarray, " s"], overlap: float = 0.0
) -> Comparison:
    """Tests each arm against the baseline on common seeds, with Holm's correction over the arms.

    The probability that any arm that equals the baseline is found different is at most 5%. For
    `overlap` see `compute_intervals`.
    """
    differences = values - baseline
    p = paired_t_test(differences, overlap=overlap)
    means, halves = compute_intervals(differences, overlap)
    return Comparison(_count_values(differences), means, halves, p, holm(p))


def paired_t_test(
    differences: Float[np.ndarray, "*k s"],
    alternative: Literal["two-sided", "greater"] = "two-sided",
    overlap: float = 0.0,
) -> Float[np.ndarray, "*k"]:
    """Computes the p-value of Student's t-test that the mean difference over the last axis is 0.

    It is 1 if all differences are 0, and NaN if there are fewer than two or all are the same other
    number, which gives no estimate of their spread. For `overlap` see `compute_intervals`.

    Example:
      >>> p = paired_t_test(np.array([0.1, 0.2, 0.3]))
      >>> corrected = paired_t_test(np.array([0.1, 0.2, 0.3]), overlap=1.0)  # t is half as large
      >>> print(f"{p:.3f} {corrected:.3f}")
      0.074 0.225
    """
    p = np.full(differences.shape[:-1], np.nan)
    testable = _count_values(differences) > 1
    known = differences[testable]
    largest = np.nanmax(np.abs(known), axis=-1, initial=0)
    spread = np.nanmax(known, axis=-1, initial=-np.inf) - np.nanmin(known, axis=-1, initial=np.inf)
    # Equal differences differ by round-off, which the test would take for a tiny spread.
    varies = spread > 1e-9 * largest
    p_known = np.where(largest == 0, 1.0, np.nan)
    if varies.any():
        test = stats.ttest_1samp(known[varies], 0.0, axis=-1, nan_policy="omit")
        # The variance 1 / n + overlap, in place of 1 / n, and the same degrees of freedom.
        # t = mean / (s (1 / n + overlap)^(1/2)) is Student's t over (1 + n overlap)^(1/2).
        t = test.statistic / np.sqrt(1 + overlap * _count_values(known[varies]))
        tail = stats.t.sf(t if alternative == "greater" else np.abs(t), test.df)
        p_known[varies] = tail if alternative == "greater" else 2 * tail
    p[testable] = p_known
    return p


def holm(p: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Applies Holm's correction to p-values; NaN stays NaN and does not count as a test.

    SciPy has only corrections of the false discovery rate.
    Source: Holm, Scandinavian Journal of Statistics 1979.

    Example:
      >>> holm(np.array([0.01, 0.04, np.nan])).tolist()
      [0.02, 0.04, nan]
    """
    order = np.argsort(p)[: _count_values(p)]  # NaN comes last
    tests_left = np.arange(len(order), 0, -1)
    corrected = np.full(len(p), np.nan)
    # The i-th smallest of m p-values times m - i + 1; the running maximum keeps their order, since
    # a hypothesis is rejected only if all with smaller p-values are.
    corrected[order] = np.minimum(np.maximum.accumulate(tests_left * p[order]), 1)
    return corrected


def find_best_arms(
    values: Float[np.ndarray, "a s"], *, maximize: bool, overlap: float = 0.0
) -> Bool[np.ndarray, " a"]:
    """Selects the arm with the best mean and all arms that it is not significantly better than.

    Uses one-sided paired tests with Holm's correction over the arms; arms with fewer than two seeds
    are not selected. The correction compensates for the choice of the top arm among many: the truly
    best arm, and each arm that equals it, is selected with a probability of 95% (simulated: 94 to
    99%, over 3 to 10 seeds and 4 to 40 arms of equal and unequal spread, of which 2 to all are
    tied). All tied arms are selected together less often (of 4 arms 87%, of 16 76%, five seeds), so
    not being selected means little if many arms are about equally good. For `overlap` see
    `compute_intervals`.
    """
    signed = values if maximize else -values
    candidates = _count_values(values) > 1
    if not candidates.any():
        return candidates
    means, _ = compute_intervals(signed)
    top = np.argmax(np.where(candidates, means, -np.inf))
    p = paired_t_test(signed[top] - signed, "greater", overlap)
    p[top] = np.nan  # not a test
    # NaN compares as False: an arm that cannot be tested, such as the top one, stays selected.
    return candidates & ~(holm(p) <= SIGNIFICANCE_LEVEL)


def _count_values(values: np.ndarray) -> np.ndarray:
    """Counts the values along the last axis that are not NaN."""
    return np.asarray((~np.isnan(values)).sum(axis=-1))
