"""Statistics of examples and formulas of them, against scikit-learn and closed forms."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from mmjax import metrics
from mmjax.metrics.direction import (
    check_extra_metrics,
    compute_extra_metrics,
    declare_metric,
    get_direction,
    tune_extra_metrics,
)
from mmjax.metrics.spans import list_spans
from mmjax.metrics.statistics import is_per_example


def total(statistics, predictions, targets):
    each = jax.vmap(statistics)(jnp.asarray(predictions), jnp.asarray(targets))
    return jax.tree.map(lambda x: np.asarray(x.sum(axis=0)), each)


def softmax(logits):
    e = np.exp(logits.astype(np.float64))
    return e / e.sum(-1, keepdims=True)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), used=st.integers(2, 6))
def test_classification_is_scikit_learns(seed, used):
    """Classes from `used` on occur in no target, and often in no prediction."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(40, 6)).astype(np.float32)
    logits[:, used:] -= rng.choice([0.0, 5.0])
    targets = np.concatenate([np.arange(used), rng.integers(0, used, size=40 - used)])
    guesses, p, named = logits.argmax(axis=1), softmax(logits), np.eye(6)[targets]
    kept = jax.vmap(metrics.record_choice)(jnp.asarray(logits), jnp.asarray(targets))
    np.testing.assert_array_equal(kept["predicted"].values, guesses)
    np.testing.assert_allclose(kept["confidence"].values, p.max(1), rtol=1e-5)
    got = metrics.count_per_class(targets, guesses, 6)
    assert metrics.accuracy(got["tp"], got["fn"]) == sk.accuracy_score(targets, guesses)
    occurs = range(used)
    expected = {
        metrics.dice: sk.f1_score(targets, guesses, average="macro", zero_division=0),
        metrics.balanced_accuracy: np.mean(
            sk.recall_score(targets, guesses, labels=occurs, average=None, zero_division=0)
        ),
        metrics.matthews_correlation: sk.matthews_corrcoef(targets, guesses),
        metrics.cohen_kappa: sk.cohen_kappa_score(targets, guesses),
        metrics.auroc: np.mean([sk.roc_auc_score(named[:, i], p[:, i]) for i in occurs]),
        metrics.average_precision: np.mean(
            [sk.average_precision_score(named[:, i], p[:, i]) for i in occurs]
        ),
        functools.partial(metrics.top_k_accuracy, k=2): sk.top_k_accuracy_score(
            targets, logits, k=2, labels=range(6)
        ),
        metrics.negative_log_likelihood: sk.log_loss(targets, p, labels=range(6)),
        metrics.brier_score: np.square(p - named).sum(1).mean(),
    }
    assert metrics.macro_f1(**got) == pytest.approx(expected[metrics.dice])
    for metric, value in expected.items():
        assert metric(logits, targets) == pytest.approx(value, rel=1e-9, abs=1e-12), metric
    rank, kappa = metrics.rank_error, metrics.quadratic_kappa
    assert rank(targets, guesses) == pytest.approx(sk.mean_absolute_error(targets, guesses))
    weighted = sk.cohen_kappa_score(targets, guesses, weights="quadratic", labels=range(6))
    assert kappa(targets, guesses) == pytest.approx(weighted, abs=1e-12)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), digits=st.integers(0, 3))
def test_two_classes_are_scikit_learns_with_ties(seed, digits):
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(size=(30, 2)), digits).astype(np.float32)
    targets = np.append(rng.integers(0, 2, 28), [0, 1])
    score = np.diff(logits.astype(np.float64))[:, 0]
    p = softmax(logits)
    expected = {
        metrics.auroc: sk.roc_auc_score(targets, score),
        metrics.average_precision: sk.average_precision_score(targets, score),
        metrics.brier_score: sk.brier_score_loss(targets, p[:, 1]),
        metrics.negative_log_likelihood: sk.log_loss(targets, p),
    }
    for metric, value in expected.items():
        assert metric(logits, targets) == pytest.approx(value, rel=1e-9), metric


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), rate=st.floats(0, 1))
def test_multilabel_is_scikit_learns_with_unknown_entries(seed, rate):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(25, 4)).astype(np.float32) + 2 * np.float32(rate) - 2
    targets = (rng.uniform(size=(25, 4)) < rate).astype(np.int32)
    targets[:2] = [[0] * 4, [1] * 4]
    unknown = rng.uniform(size=(25, 4)) < 0.2
    unknown[:2] = False
    targets[unknown] = -1
    got = total(metrics.count_hits, logits, targets)
    known = [targets[:, i] >= 0 for i in range(4)]
    columns = [(targets[k, i], logits[k, i]) for i, k in enumerate(known)]
    f1 = [sk.f1_score(y, s > 0, zero_division=0) for y, s in columns]
    np.testing.assert_allclose(metrics.f1(got["tp"], got["fp"], got["fn"]), f1)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    flat = targets[~unknown], p[~unknown]
    expected = {
        metrics.auroc: np.mean([sk.roc_auc_score(y, s) for y, s in columns]),
        metrics.average_precision: np.mean([sk.average_precision_score(y, s) for y, s in columns]),
        metrics.negative_log_likelihood: sk.log_loss(*flat),
        metrics.brier_score: sk.brier_score_loss(*flat),
    }
    for metric, value in expected.items():
        assert metric(logits, targets) == pytest.approx(value, rel=1e-9), metric


def test_tuned_thresholds_are_the_best_of_all_and_from_the_data_they_are_tuned_on():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(40, 3)), rng.integers(0, 2, (40, 3))
    logits += targets
    targets[:, 2] = 0
    thresholds = metrics.tune_thresholds(logits, targets)
    for i in (0, 1):
        scores = [sk.f1_score(targets[:, i], logits[:, i] >= t) for t in logits[:, i]]
        best = sk.f1_score(targets[:, i], logits[:, i] >= thresholds[i])
        assert best == max(scores)
    assert thresholds[2] == 0
    other = rng.normal(size=(40, 3))
    found = metrics.tuned_macro_f1(other, targets, thresholds)
    expected = sk.f1_score(targets, other >= thresholds, average="macro", zero_division=0)
    assert found == pytest.approx(expected)
    extra = {"tuned": metrics.tuned_macro_f1, "auroc": metrics.auroc}
    settings = tune_extra_metrics(extra, logits, targets)
    assert settings.keys() == {"tuned"}
    assert compute_extra_metrics(extra, other, targets, settings)["tuned"] == found


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), used=st.integers(2, 5))
def test_places_are_scikit_learns(seed, used):
    """Pixels of which some have no label; classes from `used` on are never true."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
    targets = rng.integers(-1, used, size=(3, 4, 5))
    got = total(metrics.count_confusions, logits, targets)
    true, found = targets[targets >= 0], logits.argmax(axis=-1)[targets >= 0]
    matrix = sk.confusion_matrix(true, found, labels=range(6))
    np.testing.assert_array_equal(got["tp"], np.diag(matrix))
    np.testing.assert_array_equal(got["tp"] + got["fp"], matrix.sum(0))
    np.testing.assert_array_equal(got["tp"] + got["fn"], matrix.sum(1))
    iou = sk.jaccard_score(true, found, average="macro", zero_division=0)
    np.testing.assert_allclose(metrics.mean_iou(**got), iou)
    dice = sk.f1_score(true, found, average="macro", zero_division=0)
    assert metrics.dice(logits, targets) == pytest.approx(dice)


@pytest.mark.parametrize("mean", [0.0, 3.0, 1e8])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_real_numbers_are_scikit_learns(mean, shape):
    rng = np.random.default_rng(0)
    y = (mean + 50 * rng.normal(size=(60, *shape))).astype(np.float32)
    p = (y + 15 * rng.normal(size=(60, *shape))).astype(np.float32)
    exact, guess = y.astype(np.float64), p.astype(np.float64)
    columns = list(zip(guess.reshape(60, -1).T, exact.reshape(60, -1).T, strict=True))
    expected = {
        metrics.mean_absolute_error: sk.mean_absolute_error(exact, guess),
        metrics.root_mean_squared_error: sk.root_mean_squared_error(exact, guess),
        metrics.r2: sk.r2_score(exact, guess),
        metrics.mean_absolute_percentage_error: sk.mean_absolute_percentage_error(exact, guess),
        functools.partial(metrics.mean_pinball_loss, quantile=0.9): sk.mean_pinball_loss(
            exact, guess, alpha=0.9
        ),
        metrics.pearson: np.mean([np.corrcoef(a, b)[0, 1] for a, b in columns]),
        metrics.spearman: np.mean([stats.spearmanr(a, b).statistic for a, b in columns]),
    }
    for metric, value in expected.items():
        assert metric(p, y) == pytest.approx(value, rel=1e-9), metric


def test_calibration_is_the_mean_gap_of_the_bins():
    rng = np.random.default_rng(0)
    logits, targets = 2 * rng.normal(size=(200, 4)), rng.integers(0, 4, 200)
    p, correct = softmax(logits).max(1), logits.argmax(1) == targets
    expected = 0.0
    for i in range(10):
        inside = (p > i / 10) & (p <= (i + 1) / 10)
        if inside.any():
            expected += inside.mean() * abs(p[inside].mean() - correct[inside].mean())
    assert metrics.calibration_error(logits, targets, bins=10) == pytest.approx(expected)
    curve = metrics.compute_calibration_curve(p, correct, bins=10)
    assert curve["examples"].sum() == 200 and len(curve["accuracy"]) <= 10


def test_adaptive_bins_have_equally_many_examples():
    rng = np.random.default_rng(1)
    logits, targets = 2 * rng.normal(size=(103, 4)), rng.integers(0, 4, 103)
    p, correct = softmax(logits).max(1), logits.argmax(1) == targets
    order = sorted(range(103), key=lambda i: p[i])
    bounds = [0, 21, 42, 63, 83, 103]  # five bins, the first three with one more
    expected = 0.0
    for start, stop in itertools.pairwise(bounds):
        inside = order[start:stop]
        expected += len(inside) / 103 * abs(p[inside].mean() - correct[inside].mean())
    found = metrics.adaptive_calibration_error(logits, targets, bins=5)
    assert found == pytest.approx(expected, rel=1e-9)


def test_risk_coverage_is_the_error_rate_of_the_most_confident():
    """By a loop over coverages; ties are averaged over all orders of the tied examples."""
    rng = np.random.default_rng(2)
    logits, targets = 2 * rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    p, wrong = softmax(logits).max(1), logits.argmax(1) != targets
    order = np.argsort(-p)
    risks = [wrong[order[:k]].mean() for k in range(1, 41)]
    assert metrics.risk_coverage_area(logits, targets) == pytest.approx(np.mean(risks), rel=1e-9)
    best = [max(0, k - (~wrong).sum()) / k for k in range(1, 41)]
    excess = metrics.excess_risk_coverage_area(logits, targets)
    assert excess == pytest.approx(np.mean(risks) - np.mean(best), rel=1e-9)
    tied, correct = np.array([0.9, 0.5, 0.5, 0.5]), np.array([True, False, True, False])
    orders = []
    for rest in itertools.permutations(correct[1:]):
        errors = ~np.array([True, *rest])
        orders.append(errors.cumsum() / np.arange(1, 5))
    found = metrics.compute_risk_coverage(tied, correct)
    np.testing.assert_allclose(found["risk"], np.mean(orders, axis=0), rtol=1e-12)
    np.testing.assert_array_equal(found["coverage"], [0.25, 0.5, 0.75, 1.0])


def test_a_temperature_recovers_the_one_that_the_logits_were_multiplied_by():
    """Of classes drawn from softmax(z), the logits z / 0.4 need T = 1 / 0.4; a grid agrees."""
    rng = np.random.default_rng(3)
    logits = 2 * rng.normal(size=(10_000, 4))
    p = softmax(logits)
    targets = (p.cumsum(axis=1) < rng.random((10_000, 1))).sum(axis=1)
    found = metrics.fit_temperature(logits / 0.4, targets)
    assert found == pytest.approx(2.5, rel=0.06)  # the standard error is 1%
    grid = np.linspace(2.35, 2.65, 13)
    losses = [metrics.negative_log_likelihood(logits / 0.4 / t, targets) for t in grid]
    assert abs(found - grid[np.argmin(losses)]) <= 0.0126
    with_gaps = np.concatenate([targets[:100], -np.ones(3, int)])
    padded = np.concatenate([logits[:100], np.full((3, 4), 9.0)])
    alone = metrics.fit_temperature(logits[:100], targets[:100])
    assert metrics.fit_temperature(padded, with_gaps) == pytest.approx(alone, rel=1e-9)
    assert metrics.fit_temperature(np.eye(3), np.arange(3)) == 0.01  # all right: T falls
    assert metrics.fit_temperature(np.eye(3), np.array([1, 2, 0])) == 100  # all wrong
    with pytest.raises(ValueError, match="at least one label"):
        metrics.fit_temperature(np.zeros((2, 3)), np.array([-1, -1]))


def test_spans_are_those_of_the_scheme():
    names = ("O", "B-X", "I-X", "B-Y", "I-Y")
    spans = list_spans([names[i] for i in (1, 2, 2, 1, 4, 4, 3, 0, 2)])
    assert spans == [("X", 0, 3), ("X", 3, 4), ("Y", 4, 6), ("Y", 6, 7), ("X", 8, 9)]
    target = np.array([[1, 2, 0, 3, -1], [1, 0, 0, -1, -1]])
    predicted = np.array([[1, 2, 0, 1, 2], [1, 2, 0, 1, 1]])
    # Right: (X, 0, 2). Three spans are true and three are predicted, of tokens with labels.
    f1 = metrics.span_f1(np.eye(5)[predicted], target, classes=names)
    assert f1 == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="0 names for 5 classes"):
        metrics.span_f1(np.eye(5)[predicted], target)


def test_a_report_names_every_class_with_scikit_learns_numbers():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 3, (2, 50))
    rows = metrics.make_class_report(y, p, ["a", "b", "c"])
    expected = sk.precision_recall_fscore_support(y, p)
    for i, row in enumerate(rows[1:]):
        assert row == ["abc"[i], *(f"{part[i]:.3f}" for part in expected[:3]), str(expected[3][i])]


NONE, EMPTY = np.zeros(0, int), np.zeros((0, 3), np.float32)
COUNTS = {"tp": NONE, "fp": NONE, "fn": NONE}
ZEROS, ONES = np.zeros(4, int), np.ones(4)
# Formulas with arguments for which nothing can be judged.
UNDEFINED = [
    (metrics.accuracy, NONE, NONE),
    (metrics.macro_f1, *COUNTS.values()),
    (metrics.mean_iou, *COUNTS.values()),
    (metrics.mean_from_sum, 0.0, 0.0),
    (metrics.rank_error, NONE, NONE),
    (metrics.quadratic_kappa, NONE, NONE),
    (metrics.quadratic_kappa, ZEROS, ZEROS),
    (metrics.mean_absolute_error, NONE, NONE),
    (metrics.root_mean_squared_error, NONE, NONE),
    (metrics.mean_absolute_percentage_error, NONE, NONE),
    (metrics.mean_pinball_loss, NONE, NONE),
    (metrics.r2, NONE, NONE),
    (metrics.r2, ONES, 2 * ONES),
    (metrics.pearson, np.arange(4.0), ONES),
    (metrics.spearman, ONES, np.arange(4.0)),
    (metrics.auroc, np.zeros((4, 2)), ZEROS),
    (metrics.average_precision, np.zeros((4, 3)), ZEROS),
    (metrics.cohen_kappa, np.eye(2)[ZEROS], ZEROS),
    (metrics.cohen_kappa, EMPTY, NONE),
    (metrics.matthews_correlation, EMPTY, NONE),
    (metrics.balanced_accuracy, EMPTY, NONE),
    (metrics.dice, EMPTY, NONE),
    (metrics.top_k_accuracy, EMPTY, NONE),
    (metrics.negative_log_likelihood, EMPTY, NONE),
    (metrics.brier_score, EMPTY, NONE),
    (metrics.calibration_error, EMPTY, NONE),
    (metrics.adaptive_calibration_error, EMPTY, NONE),
    (metrics.classwise_calibration_error, EMPTY, NONE),
    (metrics.risk_coverage_area, EMPTY, NONE),
    (metrics.excess_risk_coverage_area, EMPTY, NONE),
    (functools.partial(metrics.span_f1, classes="abc"), np.zeros((0, 2, 3)), NONE.reshape(0, 2)),
]


@pytest.mark.parametrize("formula, arguments", [(f, a) for f, *a in UNDEFINED])
@pytest.mark.filterwarnings("error")
def test_nothing_to_judge_is_nan(formula, arguments):
    assert np.isnan(formula(*arguments))


RNG = np.random.default_rng(0)
# Predictions and targets of five examples.
STATISTICS = {
    metrics.record_choice: (RNG.normal(size=(5, 3)), RNG.integers(0, 3, 5)),
    metrics.count_confusions: (RNG.normal(size=(5, 4, 3)), RNG.integers(-1, 3, (5, 4))),
    metrics.count_hits: (RNG.normal(size=(5, 3)), RNG.integers(0, 2, (5, 3))),
    metrics.sum_depth_errors: (RNG.normal(2, 1, (5, 3, 4)), RNG.normal(size=(5, 3, 4))),
}
OPTIONS = {metrics.sum_depth_errors: {"scale": 0.5}}


@pytest.mark.parametrize("statistics", STATISTICS)
def test_statistics_are_finite_and_one_example_does_not_change_anothers(statistics):
    function = functools.partial(statistics, **OPTIONS.get(statistics, {}))
    kinds = {"i": jnp.int32, "f": jnp.float32}
    pairs = [jnp.asarray(x, kinds[x.dtype.kind]) for x in STATISTICS[statistics]]
    together = jax.jit(jax.vmap(function))(*pairs)
    for i in range(5):
        alone = function(*(x[i] for x in pairs))
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            assert jnp.isfinite(a).all()
            np.testing.assert_allclose(a, b[i], rtol=1e-6)
    assert is_per_example(next(iter(together.values()))) == (
        statistics in (metrics.record_choice, metrics.sum_depth_errors)
    )


def test_every_metric_is_in_a_table():
    """`f1`, of arrays, is 0 and not NaN for a class that does not occur."""
    functions = {f for name in metrics.__all__ if callable(f := getattr(metrics, name))}
    judged = {getattr(f, "func", f) for f, *_ in UNDEFINED} | set(STATISTICS)
    elsewhere = {
        metrics.f1,
        metrics.count_per_class,
        metrics.compute_calibration_curve,
        metrics.compute_risk_coverage,
        metrics.fit_temperature,
        metrics.make_class_report,
        metrics.tune_thresholds,
        metrics.tuned_macro_f1,
        metrics.higher_is_better,
        metrics.lower_is_better,
        metrics.PerExample,
        metrics.Metric,
        metrics.Statistics,
    }
    assert functions == judged | {f for f in elsewhere if f in functions}
    declared = {f for f in functions if getattr(f, "better", None)}
    assert {get_direction(f) for f in declared} == {"max", "min"}


@pytest.mark.parametrize(
    "extra, message",
    [
        ({"auroc": 3}, r"extra_metrics\['auroc'\] of task 'mood' is 3; it must be a function"),
        ({"accuracy": metrics.auroc}, r"one of \['accuracy', 'loss'\]; rename it"),
        ({"mine": lambda p, y: 0.0}, "does not say which direction is better"),
        ({"r": metrics.pearson}, "is for regression, but the task is a classification"),
    ],
)
def test_an_extra_metric_that_cannot_be_computed_is_refused(extra, message):
    with pytest.raises(ValueError, match=message):
        check_extra_metrics("mood", "classification", extra, {"accuracy": "max"})


def test_a_failing_metric_is_named_and_zero_examples_are_nan():
    @declare_metric("max")
    def fragile(prediction, target):
        raise ValueError("no")

    assert get_direction(functools.partial(fragile)) == "max"
    with pytest.raises(ValueError, match=r"metric 'mine' failed .* no"):
        compute_extra_metrics({"mine": fragile}, np.zeros(3), np.zeros(3), {})
    assert np.isnan(compute_extra_metrics({"mine": fragile}, ONES[:0], ONES[:0], {})["mine"])
