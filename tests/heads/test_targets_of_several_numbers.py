"""Heads of vectors, soft labels and unknown labels, against NumPy in float64 and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import losses
from mmjax.data.dataset import Task
from mmjax.heads import Classification, MultiLabel, Regression
from mmjax.metrics.statistics import is_per_example

RNG = np.random.default_rng(0)


def sum_statistics(head, prediction, target):
    rows = jax.jit(jax.vmap(head.statistics))(jnp.asarray(prediction), jnp.asarray(target))

    def total(x):
        return x if is_per_example(x) else np.asarray(x).sum(axis=0)

    return jax.tree.map(total, rows, is_leaf=is_per_example)


def test_a_vector_is_predicted_and_measured_per_component():
    from sklearn import metrics

    mean, scale = (100.0, 0.0, -5.0), (10.0, 0.1, 2.0)
    head = Regression(mean=mean, scale=scale, shape=(3,))
    y, _ = head.init_with_output(jax.random.key(0), jnp.zeros((4, 6)))
    assert y.shape == (4, 3)
    np.testing.assert_allclose(y, np.tile(mean, (4, 1)))
    target = (mean + scale * RNG.normal(size=(500, 3))).astype(np.float32)
    prediction = (target + 0.3 * np.array(scale) * RNG.normal(size=(500, 3))).astype(np.float32)
    got = jax.jit(jax.vmap(head.example_loss))(jnp.asarray(prediction), jnp.asarray(target))
    expected = (((prediction.astype(float) - target) / scale) ** 2).mean(axis=1)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    summary = head.summary(sum_statistics(head, prediction, target))
    error = prediction.astype(float) - target
    assert summary["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-4)
    assert summary["rmse"] == pytest.approx(np.sqrt((error**2).mean(axis=0)).mean(), rel=1e-4)
    assert summary["r2"] == pytest.approx(metrics.r2_score(target, prediction), abs=1e-4)
    head.check(Task("regression", shape=(3,)), "place")
    with pytest.raises(ValueError, match=r"set the head's shape to \(3,\)"):
        Regression().check(Task("regression", shape=(3,)), "place")


def test_soft_labels_have_the_cross_entropy_of_their_shares():
    logits = RNG.normal(size=(50, 4)).astype(np.float32)
    shares = RNG.dirichlet(np.ones(4), size=50).astype(np.float32)
    head = Classification(4)
    got = jax.jit(jax.vmap(head.example_loss))(jnp.asarray(logits), jnp.asarray(shares))
    log_p = logits - np.log(np.exp(logits.astype(float)).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(got, -(shares * log_p).sum(axis=1), rtol=1e-5)
    hard = np.eye(4, dtype=np.float32)[[2]]
    same = losses.cross_entropy(jnp.asarray(logits[0]), jnp.asarray(2), 0.1)
    assert losses.cross_entropy(jnp.asarray(logits[0]), jnp.asarray(hard[0]), 0.1) == same
    accuracy = head.summary(sum_statistics(head, logits, shares))["accuracy"]
    assert accuracy == (logits.argmax(axis=1) == shares.argmax(axis=1)).mean()


def test_unknown_labels_count_neither_in_loss_gradient_nor_metrics():
    from sklearn import metrics

    logits = RNG.normal(size=(80, 5)).astype(np.float32)
    target = RNG.integers(-1, 2, size=(80, 5))
    target[:, 0] = 1  # every row has a known label
    head = MultiLabel(5, partial=True)
    loss, gradient = jax.vmap(jax.value_and_grad(head.example_loss))(
        jnp.asarray(logits), jnp.asarray(target)
    )
    known = target >= 0
    p = logits.astype(float)
    entropy = np.where(known, np.log1p(np.exp(p)) - np.maximum(target, 0) * p, 0)
    np.testing.assert_allclose(loss, entropy.sum(axis=1) / known.sum(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(gradient)[~known], 0)
    assert (np.asarray(gradient)[known] != 0).all()
    per_class = [metrics.f1_score(target[k, c], logits[k, c] > 0) for c, k in enumerate(known.T)]
    summary = head.summary(sum_statistics(head, logits, target))
    assert summary["macro_f1"] == pytest.approx(np.mean(per_class))
    with pytest.raises(ValueError, match="set the head's partial to True"):
        MultiLabel(5).check(Task("multilabel", tuple("abcde"), partial=True), "tags")


def test_without_unknown_labels_a_partial_head_is_an_ordinary_one():
    logits = jnp.asarray(RNG.normal(size=5), jnp.float32)
    target = jnp.asarray([0, 1, 1, 0, 1])
    expected = MultiLabel(5).example_loss(logits, target)
    assert MultiLabel(5, partial=True).example_loss(logits, target) == pytest.approx(expected)
