import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from mmjax import losses
from mmjax.data.dataset import Task
from mmjax.heads import (
    Classification,
    CosineClassification,
    EnergyWeighted,
    Evidential,
    MultiLabel,
    Regression,
)
from mmjax.metrics.statistics import is_per_example
from tests.tolerance import bound_difference

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(40, 3)), jnp.float32)
TARGETS = {
    "classification": jnp.asarray(RNG.integers(0, 4, size=40)),
    "multilabel": jnp.asarray(RNG.integers(0, 2, size=(40, 4))),
    "regression": jnp.asarray(150 + 20 * RNG.normal(size=40), jnp.float32),
}
TASKS = {
    "classification": Task("classification", ("a", "b", "c", "d")),
    "multilabel": Task("multilabel", ("a", "b", "c", "d")),
    "regression": Task("regression", unit="Hz"),
}
TABLE = {
    "classification": Classification(4),
    "multilabel": MultiLabel(4, hidden=(5,)),
    "regression": Regression(hidden=(5, 6), mean=150.0, scale=20.0),
}
COSINE = CosineClassification(3, sharpness=7.0)
CLASSIFYING = {
    "evidential": Evidential(4),
    "energy": EnergyWeighted(4, hidden=(5,)),
}
CASES = pytest.mark.parametrize(
    "kind, head",
    [*TABLE.items(), *(("classification", head) for head in CLASSIFYING.values())],
    ids=[*TABLE, *CLASSIFYING],
)


def predictions(head, x=X):
    return head.init_with_output(jax.random.key(0), x)[0]


def summary(head, predicted, targets):
    each = jax.device_get(jax.jit(jax.vmap(head.statistics))(predicted, targets))
    return head.summary(merge_examples([each]))


def merge_examples(parts):
    """Sums of counts, and the examples of what is kept per example, over parts [n ...]."""

    def merge(*values):
        if is_per_example(values[0]):
            return jax.tree.map(lambda *x: np.concatenate(x), *values)
        return sum(np.asarray(value).sum(axis=0) for value in values)

    return jax.tree.map(merge, *parts, is_leaf=is_per_example)


@CASES
def test_output_is_the_layers_and_float32(kind, head):
    got, params = head.init_with_output(jax.random.key(0), X)
    y = np.asarray(X, np.float64)
    for i in range(len(head.hidden)):
        layer = params["params"][f"hidden_{i}"]
        y = np.maximum(y @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0)
    y = y @ np.asarray(params["params"]["output"]["kernel"])
    y = 150 + 20 * y[:, 0] if kind == "regression" else y
    y = np.log1p(np.log1p(np.exp(y))) if isinstance(head, Evidential) else y
    np.testing.assert_allclose(got, y, rtol=1e-5, atol=1e-5)
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), (params, X))
    assert head.apply(*half).dtype == jnp.float32


@CASES
def test_zeros_are_a_valid_target(kind, head):
    p = predictions(head)
    zeros = jnp.zeros_like(TARGETS[kind])

    def loss(p):
        return jax.vmap(head.example_loss)(p, zeros).sum()

    assert jnp.isfinite(loss(p)) and jnp.isfinite(jax.jit(jax.grad(loss))(p)).all()


@CASES
def test_the_summary_has_the_promised_metrics(kind, head):
    got = summary(head, predictions(head), TARGETS[kind])
    assert set(got) == set(head.metrics) and set(head.metrics.values()) <= {"max", "min"}
    assert all(isinstance(value, float) for value in got.values())


@CASES
def test_statistics_add_over_batches(kind, head):
    p, y = predictions(head), TARGETS[kind]
    each = jax.jit(jax.vmap(head.statistics))(p, y)
    parts = [jax.tree.map(lambda s, i=i: np.asarray(s)[i::2], each) for i in (0, 1)]
    merged = head.summary(merge_examples(parts))
    for name, value in summary(head, p, y).items():
        np.testing.assert_allclose(merged[name], value, rtol=bound_difference(100))


def test_classification_metrics_are_scikit_learns():
    p, y = predictions(Classification(4)), TARGETS["classification"]
    got = summary(Classification(4), p, y)
    guesses = np.asarray(p).argmax(axis=1)
    np.testing.assert_allclose(got["accuracy"], sk.accuracy_score(y, guesses))
    np.testing.assert_allclose(
        got["macro_f1"], sk.f1_score(y, guesses, average="macro", zero_division=0)
    )


def test_multilabel_metrics_are_scikit_learns_even_with_an_empty_class():
    p = predictions(MultiLabel(4)).at[:, 3].set(-1.0)
    y = TARGETS["multilabel"].at[:, 3].set(0)
    got = summary(MultiLabel(4), p, y)
    for average in ("macro", "micro"):
        expected = sk.f1_score(y, np.asarray(p) > 0, average=average, zero_division=0)
        np.testing.assert_allclose(got[f"{average}_f1"], expected)


@pytest.mark.parametrize("mean", [0.0, 1e5, 1e7, -1e8])
@pytest.mark.parametrize("head", [Regression(), Regression(mean=1e5, scale=2.0)])
def test_regression_metrics_are_scikit_learns_far_from_zero(head, mean):
    """Raw float32 sums would lose R² altogether; float32 inputs at 1e8 are multiples of 8."""
    y = np.asarray(mean + 30 * RNG.normal(size=1000), np.float32)
    p = (y + np.asarray(15 * RNG.normal(size=1000))).astype(np.float32)
    got = summary(head, jnp.asarray(p), jnp.asarray(y))
    y, p = y.astype(np.float64), p.astype(np.float64)
    expected = {
        "mae": sk.mean_absolute_error(y, p),
        "rmse": sk.root_mean_squared_error(y, p),
        "r2": sk.r2_score(y, p),
    }
    assert got == pytest.approx(expected, rel=1e-9)


def test_the_regression_loss_has_no_unit():
    hertz, kilohertz = Regression(mean=150.0, scale=20.0), Regression(mean=0.15, scale=0.02)
    p, y = jnp.float32(190), jnp.float32(150)
    np.testing.assert_allclose(hertz.example_loss(p, y), 4.0, rtol=1e-5)
    np.testing.assert_allclose(kilohertz.example_loss(p / 1000, y / 1000), 4.0, rtol=1e-4)


def test_the_loss_is_exchangeable():
    head = Classification(2, loss=functools.partial(losses.cross_entropy, label_smoothing=0.5))
    got = head.example_loss(jnp.array([2.0, 0.0]), jnp.asarray(0))
    p = np.exp(2) / (1 + np.exp(2))
    np.testing.assert_allclose(got, -0.75 * np.log(p) - 0.25 * np.log(1 - p), rtol=1e-5)
    robust = Regression(scale=2.0, loss=losses.absolute_error)
    np.testing.assert_allclose(robust.example_loss(jnp.float32(1), jnp.float32(7)), 3.0)


@CASES
def test_a_head_accepts_its_own_kind_of_task_only(kind, head):
    head.check(TASKS[kind], "pitch")
    for other, task in TASKS.items():
        if other != kind:
            with pytest.raises(ValueError, match=f"'pitch' is of kind '{other}'"):
                head.check(task, "pitch")


@pytest.mark.parametrize(
    "head, kind", [(Classification(10), "classification"), (MultiLabel(3), "multilabel")]
)
def test_the_number_of_classes_must_fit(head, kind):
    with pytest.raises(ValueError, match=f"'word' has 4 classes but its head has {head.classes}"):
        head.check(TASKS[kind], "word")


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_must_be_positive(scale):
    with pytest.raises(ValueError, match=r"Regression\.scale"):
        Regression(scale=scale)


def test_statistics_that_were_summed_over_examples_are_refused():
    x = jnp.arange(3.0)
    rows = jax.jit(jax.vmap(Regression(mean=0.0, scale=1.0).statistics))(x, x)
    with pytest.raises(ValueError, match="summed over the examples"):
        Regression().summary(jax.tree.map(lambda v: v.sum(axis=0), rows))


def test_cosine_logits_ignore_lengths():
    """Against float64 cosines; features of zeros give logits of zeros."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(5, 4)), rng.normal(size=(4, 3))
    x[0] = 0
    head = COSINE
    params = {"params": {"directions": jnp.asarray(w, jnp.float32)}}
    lengths = np.linalg.norm(x, axis=1, keepdims=True) * np.linalg.norm(w, axis=0)
    expected = 7 * (x @ w) / np.where(lengths > 0, lengths, 1)
    got = head.apply(params, jnp.asarray(50 * x, jnp.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="sharpness is 0"):
        CosineClassification(3, sharpness=0.0)
