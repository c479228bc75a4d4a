"""Statistics summed over examples, then the formulas, against scikit-learn."""

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


@pytest.mark.parametrize(
    "value",
    [
        metrics.accuracy(np.zeros((3, 3), int)),
        metrics.macro_f1(np.zeros((3, 3), int)),
        metrics.mean_iou(np.zeros((3, 3), int)),
        metrics.rank_error(np.zeros((3, 3), int)),
        metrics.quadratic_kappa(np.zeros((3, 3), int)),
        metrics.quadratic_kappa(np.diag([4, 0, 0])),
        metrics.ratio(0.0, 0.0),
        metrics.r2(0.0, 0.0, 0.0, 0.0),
        metrics.r2(0.5, 4.0, 8.0, 2.0),
    ],
)
def test_nothing_to_judge_is_nan(value):
    assert np.isnan(value)
