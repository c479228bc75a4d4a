"""Comparison of two models on the same test examples: McNemar's test and the paired bootstrap.

They are conditional on the trained models: they test whether these models would differ on other
examples of the same distribution. The variation between seeds and between training sets is not
included; for that, see `mmjax.report.statistics`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped
from scipy import stats

RESAMPLES = 1000
CONDITION_NOTE = (
    "Conditional on the trained models: would these very models differ on other examples of the "
    "same distribution? Other seeds and other training data are not accounted for."
)


class McNemar(NamedTuple):
    """McNemar's exact test of two classifiers.

    Attributes:
      only_first: number of examples that only the first one gets right.
      only_second: number of those that only the second one gets right.
      p: two-sided p-value that both numbers have the same expectation.
    """

    only_first: int
    only_second: int
    p: float


class Bootstrap(NamedTuple):
    """Difference of a metric, second - first, with its 95% interval over examples."""

    difference: float
    low: float
    high: float


def compute_mcnemar(first: Bool[np.ndarray, " n"], second: Bool[np.ndarray, " n"]) -> McNemar:
    """Tests whether two classifiers are right equally often, on the same examples.

    The test is exact: of the examples on which one is right and the other is not, each one has half
    of them by chance. Source: McNemar, Psychometrika 1947.

    Args:
      first: whether the first classifier is right.
      second: whether the second one is.

    Example:
      >>> first = np.array([True] * 9 + [False] * 1)
      >>> second = np.array([True] * 3 + [False] * 6 + [True])
      >>> compute_mcnemar(first, second)
      McNemar(only_first=6, only_second=1, p=0.125)
    """
    # Examples on which both are right, or both wrong, say nothing about the difference.
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    total = only_first + only_second
    # Under the null hypothesis, only_first is binomial with probability 1/2.
    p = float(stats.binomtest(only_first, total).pvalue) if total else 1.0
    return McNemar(only_first, only_second, p)


def bootstrap_difference(
    metric: Callable[[Any, Any], float],
    first: Shaped[np.ndarray, "s n ..."],
    second: Shaped[np.ndarray, "s n ..."],
    target: Shaped[np.ndarray, "n ..."],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Bootstrap:
    """Computes the difference of a metric between two models, and its interval over examples.

    Both models are judged on the same resamples of the examples, and a metric is the mean over the
    `s` seeds. The interval holds the central 95% of the resampled differences (percentile
    bootstrap, for a hundred examples or more). Source: Efron and Tibshirani, 1993, section 13.3.

    Args:
      metric: (prediction [n ...], target [n ...]) -> number, as in `mmjax.metrics`.
      first: predictions of the first model, by seed.
      second: those of the second one.
      target: what is true.
      resamples: number of resamples.
      seed: seed of the resamples.

    Example:
      >>> from mmjax.metrics import mean_absolute_error
      >>> y = np.linspace(0, 1, 50)
      >>> bootstrap_difference(mean_absolute_error, y[None], y[None] + 0.5, y)
      Bootstrap(difference=0.5, low=0.5, high=0.5)
    """
    rng = np.random.default_rng(seed)

    def compute(rows: Any) -> float:
        # The same rows for both models: what makes examples easy or hard for both cancels.
        values = [
            [metric(prediction[rows], target[rows]) for prediction in model]
            for model in (first, second)
        ]
        return float(np.mean(values[1]) - np.mean(values[0]))

    count = len(target)
    differences = [compute(rng.integers(0, count, count)) for _ in range(resamples)]
    # A metric may be undefined for a resample, such as R² if all targets are equal.
    low, high = np.nanquantile(differences, [0.025, 0.975])
    return Bootstrap(compute(slice(None)), float(low), float(high))
