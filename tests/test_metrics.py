"""Statistics summed over examples, then the formulas, against scikit-learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mmjax import metrics


def total(statistics, predictions, targets):
    each = jax.vmap(statistics)(jnp.asarray(predictions), jnp.asarray(targets))
    return jax.tree.map(lambda x: np.asarray(x.sum(axis=0)), each)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), used=st.integers(1, 6))
def test_classification_is_scikit_learns(seed, used):
    """Classes from `used` on occur in no target, and often in no prediction."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(20, 6)).astype(np.float32)
    logits[:, used:] -= rng.choice([0.0, 5.0])
    targets = rng.integers(0, used, size=20)
    got = total(metrics.confusion, logits, targets)
    guesses = logits.argmax(axis=1)
    np.testing.assert_array_equal(got, sk.confusion_matrix(targets, guesses, labels=range(6)))
    np.testing.assert_allclose(metrics.accuracy(got), sk.accuracy_score(targets, guesses))
    np.testing.assert_allclose(
        metrics.macro_f1(got), sk.f1_score(targets, guesses, average="macro", zero_division=0)
    )


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), rate=st.floats(0, 1))
def test_multilabel_is_scikit_learns(seed, rate):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(15, 4)).astype(np.float32) + 2 * np.float32(rate) - 2
    targets = (rng.uniform(size=(15, 4)) < rate).astype(np.int32)
    got = total(metrics.hits, logits, targets)
    guesses = logits > 0
    f1 = metrics.f1(got["tp"], got["fp"], got["fn"])
    expected = sk.f1_score(targets, guesses, average=None, zero_division=0)
    np.testing.assert_allclose(f1, expected)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), used=st.integers(2, 5))
def test_places_and_ranks_are_scikit_learns(seed, used):
    """Pixels of which some have no label; classes from `used` on are never true."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
    targets = rng.integers(-1, used, size=(3, 4, 5))
    got = total(metrics.confusions, logits, targets)
    true, found = targets[targets >= 0], logits.argmax(axis=-1)[targets >= 0]
    np.testing.assert_array_equal(got, sk.confusion_matrix(true, found, labels=range(6)))
    iou = sk.jaccard_score(true, found, average="macro", zero_division=0)
    np.testing.assert_allclose(metrics.mean_iou(got), iou)
    np.testing.assert_allclose(metrics.rank_error(got), sk.mean_absolute_error(true, found))
    kappa = sk.cohen_kappa_score(true, found, weights="quadratic")
    np.testing.assert_allclose(metrics.quadratic_kappa(got), kappa, atol=1e-12)


def test_r2_is_scikit_learns():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=50).astype(np.float32)
    predictions = targets + 0.3 * rng.normal(size=50).astype(np.float32)
    sums = total(metrics.residuals, predictions, targets)
    assert sums["count"] == 50
    mae, mse = sums["absolute"] / 50, sums["squared"] / 50
    np.testing.assert_allclose(mae, sk.mean_absolute_error(targets, predictions), rtol=1e-5)
    np.testing.assert_allclose(mse, sk.mean_squared_error(targets, predictions), rtol=1e-5)
    got = metrics.r2(
        *(float(sums[name]) for name in ("squared", "target", "target_squared", "count"))
    )
    np.testing.assert_allclose(got, sk.r2_score(targets, predictions), rtol=1e-5)


EMPTY = np.zeros((3, 3), int)
# Arguments for which nothing can be judged.
FORMULAS = [
    (metrics.accuracy, EMPTY),
    (metrics.macro_f1, EMPTY),
    (metrics.mean_iou, EMPTY),
    (metrics.rank_error, EMPTY),
    (metrics.quadratic_kappa, EMPTY),
    (metrics.quadratic_kappa, np.diag([4, 0, 0])),
    (metrics.ratio, 0.0, 0.0),
    (metrics.r2, 0.0, 0.0, 0.0, 0.0),
    (metrics.r2, 0.5, 4.0, 8.0, 2.0),
]


@pytest.mark.parametrize("formula, arguments", [(f, a) for f, *a in FORMULAS])
def test_nothing_to_judge_is_nan(formula, arguments):
    assert np.isnan(formula(*arguments))


RNG = np.random.default_rng(0)
# Predictions and targets of five examples, and the counts or sums of no example.
STATISTICS = {
    metrics.confusion: (RNG.normal(size=(5, 3)), RNG.integers(0, 3, 5)),
    metrics.confusions: (RNG.normal(size=(5, 4, 3)), RNG.integers(-1, 3, (5, 4))),
    metrics.hits: (RNG.normal(size=(5, 3)), RNG.integers(0, 2, (5, 3))),
    metrics.residuals: (RNG.normal(size=5), RNG.normal(size=5)),
    metrics.depth_errors: (RNG.normal(2, 1, (5, 3, 4)), RNG.normal(size=(5, 3, 4))),
    metrics.at: (RNG.integers(0, 3, 5), RNG.integers(0, 3, 5)),
}
OPTIONS = {metrics.depth_errors: {"scale": 0.5}, metrics.at: {"classes": 3}}


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


def test_every_metric_is_in_a_table():
    """`f1`, of arrays, is 0 and not NaN for a class that does not occur."""
    public = {
        f
        for name, f in vars(metrics).items()
        if getattr(f, "__module__", "") == metrics.__name__ and not name.startswith("_")
    }
    assert public == {f for f, *_ in FORMULAS} | set(STATISTICS) | {metrics.f1}
