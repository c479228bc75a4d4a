"""Heads for classes in an order, and for labels of every token or pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from mmjax import heads, losses
from mmjax.data.dataset import Task
from mmjax.heads import Depth, Ordinal, Segmentation, SequenceLabeling
from mmjax.heads.decoder import Decoder, _double_size
from mmjax.kernels.batch_last import to_batch_first, to_batch_last
from mmjax.kernels.conv2d import plain_conv2d
from tests.heads import test_heads
from tests.tolerance import bound_difference

RNG = np.random.default_rng(0)
CLASSES = ("a", "b", "c", "d")
B = 6
TASKS = {
    "ordinal": Task("ordinal", CLASSES),
    "sequence": Task("sequence", CLASSES, shape=(5,)),
    "segmentation": Task("segmentation", CLASSES, shape=(5, 6)),
    "depth": Task("depth", unit="m", shape=(5, 6)),
}
# Head, features, targets.
TABLE = {
    "ordinal": (Ordinal(4, hidden=(5,)), RNG.normal(size=(B, 3)), RNG.integers(0, 4, B)),
    "sequence": (
        SequenceLabeling(4, hidden=(5,)),
        RNG.normal(size=(B, 5, 3)),
        RNG.integers(-1, 4, (B, 5)),
    ),
    "segmentation": (
        Segmentation(4, (5, 6), decoder=(4, 2)),
        RNG.normal(size=(B, 2 * 2, 3)),
        RNG.integers(-1, 4, (B, 5, 6)),
    ),
    "depth": (
        Depth((5, 6), decoder=(3,), mean=2.0, scale=0.5),
        RNG.normal(size=(B, 3)),
        np.maximum(RNG.normal(2, 2, (B, 5, 6)), 0).astype(np.float32),
    ),
}
CASES = pytest.mark.parametrize("kind", TABLE)


def ready(kind):
    """The head, its predictions, its targets."""
    head, x, y = TABLE[kind]
    prediction, params = head.init_with_output(jax.random.key(0), jnp.asarray(x, jnp.float32))
    return head, prediction, jnp.asarray(y), params


def summary(head, prediction, target):
    each = jax.device_get(jax.jit(jax.vmap(head.statistics))(prediction, target))
    return head.summary(test_heads.merge_examples([each]))


@pytest.mark.slow
@CASES
def test_zeros_and_bfloat16_are_fine_and_every_parameter_learns(kind):
    head, prediction, target, params = ready(kind)
    x = jnp.asarray(TABLE[kind][1], jnp.float32)

    @jax.jit
    def losses_and_gradient(params, target):
        def total(params):
            each = jax.vmap(head.example_loss)(head.apply(params, x), target)
            return each.sum(), each

        return jax.grad(total, has_aux=True)(params)

    gradient, each = losses_and_gradient(params, target)
    assert each.shape == (B,)
    for leaf in jax.tree.leaves(gradient):
        assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0
    gradient, each = losses_and_gradient(params, jnp.zeros_like(target))
    assert all(jnp.isfinite(leaf).all() for leaf in (each, *jax.tree.leaves(gradient)))
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), (params, x))
    got = head.apply(*half)
    assert got.dtype == jnp.float32
    spread = np.abs(np.asarray(prediction)).max()
    np.testing.assert_allclose(got, prediction, atol=0.05 * spread)


@CASES
def test_the_summary_has_the_promised_metrics_and_adds_over_batches(kind):
    head, prediction, target, _ = ready(kind)
    whole = summary(head, prediction, target)
    assert set(whole) == set(head.metrics) and set(head.metrics.values()) <= {"max", "min"}
    assert all(isinstance(value, float) for value in whole.values())
    each = jax.jit(jax.vmap(head.statistics))(prediction, target)
    parts = [jax.tree.map(lambda s, i=i: np.asarray(s)[i::2], each) for i in (0, 1)]
    merged = head.summary(test_heads.merge_examples(parts))
    for name, value in whole.items():
        np.testing.assert_allclose(merged[name], value, rtol=bound_difference(100))


@CASES
def test_a_head_accepts_its_own_kind_of_task_only(kind):
    head = TABLE[kind][0]
    head.check(TASKS[kind], "word")
    for other, task in TASKS.items():
        if other != kind:
            with pytest.raises(ValueError, match=f"'word' is of kind '{other}'"):
                head.check(task, "word")


def test_the_thresholds_are_in_order_and_start_with_all_classes_alike():
    head, _, _, params = ready("ordinal")
    even = head.apply(jax.tree.map(jnp.zeros_like, params), jnp.ones((1, 3)))[0]
    assert (jnp.diff(even) < 0).all()
    start = jax.tree.map(jnp.zeros_like, params)
    start["params"]["thresholds"] = params["params"]["thresholds"]
    over = jax.nn.sigmoid(head.apply(start, jnp.ones((1, 3)))[0])
    np.testing.assert_allclose(over, [0.75, 0.5, 0.25], atol=1e-6)
    # The weights of all rank logits are the same, so the differences do not depend on x.
    wild = jax.tree.map(lambda p: jnp.asarray(9 * RNG.normal(size=p.shape), p.dtype), params)
    logits = head.apply(wild, jnp.asarray(RNG.normal(size=(20, 3)), jnp.float32))
    gaps = np.diff(logits, axis=1)
    assert (gaps < 0).all()
    np.testing.assert_allclose(gaps, np.broadcast_to(gaps[:1], gaps.shape), atol=1e-3)


def test_ordinal_metrics_are_scikit_learns():
    logits = jnp.asarray(np.sort(RNG.normal(size=(50, 3)))[:, ::-1].copy(), jnp.float32)
    target = jnp.asarray(RNG.integers(0, 4, 50))
    got = summary(Ordinal(4), logits, target)
    found = (np.asarray(logits) > 0).sum(axis=1)
    np.testing.assert_allclose(got["accuracy"], sk.accuracy_score(target, found))
    np.testing.assert_allclose(got["mae"], sk.mean_absolute_error(target, found))
    kappa = sk.cohen_kappa_score(target, found, weights="quadratic")
    np.testing.assert_allclose(got["kappa"], kappa)


def test_coral_is_a_loss_of_the_ordinal_head():
    head = Ordinal(4, loss=losses.coral)
    logits, p = jnp.array([2.0, 1.0, -1.0]), 1 / (1 + np.exp([-2.0, -1.0, 1.0]))
    expected = -np.log(p[0]) - np.log(p[1]) - np.log(1 - p[2])
    np.testing.assert_allclose(head.example_loss(logits, jnp.asarray(2)), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["sequence", "segmentation"])
def test_the_loss_and_metrics_are_those_of_the_labelled_places(kind):
    head, prediction, target, _ = ready(kind)
    got = jax.jit(jax.vmap(head.example_loss))(prediction, target)
    for i in range(B):
        logits = np.asarray(prediction[i], np.float64).reshape(-1, 4)
        y = np.asarray(target[i]).reshape(-1)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        each = [-log_p[j, y[j]] for j in range(len(y)) if y[j] >= 0]
        np.testing.assert_allclose(got[i], np.mean(each), rtol=1e-5)
    real = np.asarray(target) >= 0
    y, found = np.asarray(target)[real], np.asarray(prediction).argmax(axis=-1)[real]
    measured = summary(head, prediction, target)
    accuracy = sk.accuracy_score(y, found)
    if kind == "sequence":
        f1 = sk.f1_score(y, found, average="macro", zero_division=0)
        expected = {"accuracy": accuracy, "macro_f1": f1}
    else:
        iou = sk.jaccard_score(y, found, average="macro", zero_division=0)
        expected = {"pixel_accuracy": accuracy, "mean_iou": iou}
    assert measured == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["sequence", "segmentation"])
def test_without_a_label_the_loss_is_zero(kind):
    head, prediction, target, _ = ready(kind)
    none = jnp.full_like(target[0], -1)
    value, gradient = jax.jit(jax.value_and_grad(head.example_loss))(prediction[0], none)
    assert value == 0 and (gradient == 0).all()
    assert all(value.sum() == 0 for value in head.statistics(prediction[0], none).values())


def test_depth_is_measured_where_there_is_a_measurement():
    head, prediction, target, _ = ready("depth")
    real = np.asarray(target) > 0
    y, p = (np.asarray(x, np.float64)[real] for x in (target, prediction))
    measured = summary(head, prediction, target)
    expected = {
        "absolute_error": np.abs(p - y).mean(),
        "relative_error": (np.abs(p - y) / y).mean(),
        "rmse": np.sqrt(((p - y) ** 2).mean()),
    }
    assert measured == pytest.approx(expected, rel=1e-5)
    here = real[0]
    error = np.abs(np.asarray(prediction[0]) - np.asarray(target[0]))[here].mean() / 0.5
    np.testing.assert_allclose(head.example_loss(prediction[0], target[0]), error, rtol=1e-5)


def convolved(y, kernel):
    return np.asarray(to_batch_first(plain_conv2d(to_batch_last(jnp.asarray(y)), kernel)))


@pytest.mark.slow
def test_the_decoder_is_its_layers():
    """Doubling, convolution, norm over the one group of 3 channels, ReLU; cropped at last."""
    decoder = Decoder((3, 4), 2, (3,))
    x = jnp.asarray(RNG.normal(size=(2, 5)), jnp.float32)
    got, variables = decoder.init_with_output(jax.random.key(0), x)
    p = variables["params"]
    y = np.maximum(np.asarray(x) @ np.asarray(p["map"]["kernel"]), 0).reshape(2, 2, 2, 3)
    y = y.repeat(2, axis=1).repeat(2, axis=2)
    y = convolved(y, p["conv_0"]["kernel"])
    mean, variance = (f(y, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.var))
    y = np.maximum((y - mean) / np.sqrt(variance + 1e-6), 0)
    y = convolved(y[:, :3], p["output"]["kernel"])
    np.testing.assert_allclose(got, y, atol=1e-5)


def test_doubling_repeats_every_pixel():
    x = RNG.normal(size=(4, 3, 2, 2)).astype(np.float32)
    np.testing.assert_array_equal(
        _double_size(jnp.asarray(x)), x.repeat(2, axis=1).repeat(2, axis=2)
    )


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Ordinal(1), "at least 2"),
        (lambda: Ordinal(3).check(TASKS["ordinal"], "word"), "has 4 classes but its head has 3"),
        (lambda: Depth((5, 6), scale=0.0), r"Depth\.scale"),
        (lambda: Depth((6, 5)).check(TASKS["depth"], "word"), r"shape \(5, 6\)"),
        (lambda: Decoder((5, 6), 1, ()), "features is empty"),
        (
            lambda: Segmentation(4, (5, 6)).init(jax.random.key(0), jnp.zeros((2, 5, 3))),
            r"2x2 tokens \[b 4 d\]",
        ),
        (
            lambda: SequenceLabeling(2).example_loss(jnp.zeros((4, 2)), jnp.zeros(5, int)),
            "keep every step",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_every_head_is_in_a_table():
    listed = [*test_heads.TABLE.values(), *test_heads.CLASSIFYING.values(), test_heads.COSINE]
    listed += [head for head, *_ in TABLE.values()]
    public = {
        getattr(heads, name) for name in set(heads.__all__) - {"Better", "EffectiveNumber", "Loss"}
    }
    assert public == {type(head) for head in listed}
