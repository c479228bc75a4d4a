"""McNemar's test and the paired bootstrap against closed forms, SciPy and simulation."""

import numpy as np
import pytest
from scipy import stats

from mmjax import metrics
from mmjax.report.example_statistics import bootstrap_difference, compute_mcnemar


def test_mcnemar_is_the_binomial_test_of_the_disagreements():
    """7 against 1: p = 2 (1 + 8) / 2⁸."""
    first = np.array([True] * 7 + [False] * 1 + [True] * 20 + [False] * 4)
    second = np.array([False] * 7 + [True] * 1 + [True] * 20 + [False] * 4)
    found = compute_mcnemar(first, second)
    assert found == (7, 1, pytest.approx(2 * 9 / 256))
    assert compute_mcnemar(first, first) == (0, 0, 1.0)


def test_equal_classifiers_are_called_different_in_5_percent_at_most():
    """1,000 pairs of classifiers that are right with 80% on 200 examples; error 0.7%."""
    right = np.random.default_rng(0).random((1_000, 2, 200)) < 0.8
    claimed = np.mean([compute_mcnemar(*pair).p <= 0.05 for pair in right])
    assert claimed < 0.06


def test_the_bootstrap_is_that_of_scipy():
    rng = np.random.default_rng(0)
    y = rng.normal(size=150)
    first, second = y + rng.normal(size=150), y + 0.7 * rng.normal(size=150)
    found = bootstrap_difference(
        metrics.mean_absolute_error, first[None], second[None], y, resamples=4_000
    )
    gaps = np.abs(second - y) - np.abs(first - y)
    expected = stats.bootstrap(
        (gaps,), np.mean, method="percentile", n_resamples=4_000, rng=1
    ).confidence_interval
    assert found.difference == pytest.approx(gaps.mean())
    error = gaps.std() / 150**0.5
    np.testing.assert_allclose(found[1:], expected, atol=0.15 * error)


def test_seeds_are_averaged_within_each_resample():
    """Two seeds whose errors cancel have no spread over examples."""
    y, noise = np.zeros(80), np.random.default_rng(0).normal(size=80)

    def mean(prediction, target):
        return float(prediction.mean())

    first, second = np.zeros((2, 80)), np.stack([noise, 1 - noise])
    found = bootstrap_difference(mean, first, second, y, resamples=50)
    np.testing.assert_allclose(found, [0.5, 0.5, 0.5])
