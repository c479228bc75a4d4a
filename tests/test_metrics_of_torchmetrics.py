"""Metrics with missing labels against torchmetrics, from the heads' statistics to the numbers.

Half of the labels are missing, and what stands in their place is garbage.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import metrics
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import (
    Classification,
    Depth,
    MultiLabel,
    Ordinal,
    Regression,
    Segmentation,
    SequenceLabeling,
)
from mmjax.model import Model
from mmjax.train.evaluation import summarize_statistics
from mmjax.train.steps.eval_step import compute_statistics, merge_batches
from mmjax.types import Batch

torch = pytest.importorskip("torch")
tm = pytest.importorskip("torchmetrics.functional")
tmc = pytest.importorskip("torchmetrics.functional.classification")
pytestmark = pytest.mark.reference

BATCHES, SIZE, CLASSES = 3, 40, 5


def evaluate(head, prediction, target, labeled):
    """Computes the metrics of a head over several batches, with garbage where no label is."""
    model = Model(encoders={"x": MLPEncoder((1,))}, fusion=Concat(), heads={"task": head})
    target = target.copy()
    target[~labeled] = 123 if target.dtype.kind == "i" else np.nan

    def one_batch(i):
        part = slice(i * SIZE, (i + 1) * SIZE)
        batch = Batch(
            inputs={"x": jnp.zeros((SIZE, 1))},
            present={"x": jnp.ones(SIZE, bool)},
            lengths={},
            targets={"task": jnp.asarray(target[part])},
            labeled={"task": jnp.asarray(labeled[part])},
        )
        return compute_statistics(model, {"task": jnp.asarray(prediction[part])}, batch)

    batches = [one_batch(i) for i in range(BATCHES)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *batches)
    values = summarize_statistics(model, jax.device_get(merge_batches(stacked)))
    return {name.removeprefix("task/"): value for name, value in values.items()}


def draw(rng, *shape):
    return rng.normal(size=(BATCHES * SIZE, *shape)).astype(np.float32)


def draw_labeled(rng):
    return rng.random(BATCHES * SIZE) < 0.5


def to_torch(x):
    return torch.tensor(x.astype(np.float64) if x.dtype.kind == "f" else x.astype(np.int64))


def check(found, expected):
    assert expected.keys() <= found.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), rel=1e-6, abs=1e-7), name


EXTRA = {
    "auroc": metrics.auroc,
    "average_precision": metrics.average_precision,
    "top_2": functools.partial(metrics.top_k_accuracy, k=2),
    "balanced_accuracy": metrics.balanced_accuracy,
    "mcc": metrics.matthews_correlation,
    "kappa": metrics.cohen_kappa,
    "dice": metrics.dice,
    "ece": metrics.calibration_error,
    "class_ece": metrics.classwise_calibration_error,
    "nll": metrics.negative_log_likelihood,
}


def classify_by_torchmetrics(logits, target, classes):
    """Computes metrics of logits [n c] and classes [n]; -1 has no label."""
    p, y = to_torch(logits).softmax(-1), to_torch(target)
    options = {"num_classes": classes, "ignore_index": -1}
    return {
        "accuracy": tmc.multiclass_accuracy(p, y, average="micro", **options),
        "macro_f1": tmc.multiclass_f1_score(p, y, average="macro", **options),
        "auroc": tmc.multiclass_auroc(p, y, **options),
        "average_precision": tmc.multiclass_average_precision(p, y, **options),
        "top_2": tmc.multiclass_accuracy(p, y, average="micro", top_k=2, **options),
        "balanced_accuracy": tmc.multiclass_recall(p, y, average="macro", **options),
        "mcc": tmc.multiclass_matthews_corrcoef(p, y, **options),
        "kappa": tmc.multiclass_cohen_kappa(p, y, **options),
        "dice": tmc.multiclass_f1_score(p, y, average="macro", **options),
        "ece": tmc.multiclass_calibration_error(p, y, n_bins=15, **options),
        "class_ece": sum(
            tmc.binary_calibration_error(p[y >= 0, c], (y[y >= 0] == c).long(), n_bins=15)
            for c in range(classes)
        )
        / classes,
        "nll": tm.text.perplexity(to_torch(logits)[None], y[None], ignore_index=-1).log(),
    }


@pytest.mark.parametrize("classes", [2, CLASSES])
@pytest.mark.filterwarnings("ignore")  # torchmetrics' own
def test_classes(classes):
    rng = np.random.default_rng(0)
    logits, labeled = draw(rng, classes), draw_labeled(rng)
    target = rng.integers(0, classes, len(logits)).astype(np.int32)
    logits[np.arange(len(logits)), target] += 1
    head = Classification(classes, extra_metrics=EXTRA | {"brier": metrics.brier_score})
    found = evaluate(head, logits, target, labeled)
    expected = classify_by_torchmetrics(logits, np.where(labeled, target, -1), classes)
    if classes == 2:  # torchmetrics has no Brier score of several classes
        p, y = to_torch(logits).softmax(-1)[labeled, 1].clone(), to_torch(target)[labeled]
        expected["brier"] = tm.mean_squared_error(p, y)
        expected["average_precision"] = tmc.binary_average_precision(p, y)  # of the second class
    check(found, expected)


@pytest.mark.parametrize("kind", ["sequence", "segmentation"])
@pytest.mark.filterwarnings("ignore")  # torchmetrics' own
def test_places(kind):
    rng = np.random.default_rng(1)
    shape = (7,) if kind == "sequence" else (4, 6)
    logits, labeled = draw(rng, *shape, CLASSES), draw_labeled(rng)
    target = rng.integers(-1, CLASSES, logits.shape[:-1]).astype(np.int32)
    if kind == "sequence":
        head = SequenceLabeling(CLASSES, tokens="x", extra_metrics=EXTRA)
    else:
        head = Segmentation(CLASSES, shape, extra_metrics=EXTRA)
    found = evaluate(head, logits, target, labeled)
    y = np.where(labeled.reshape(-1, *[1] * len(shape)), target, -1).reshape(-1)
    expected = classify_by_torchmetrics(logits.reshape(-1, CLASSES), y, CLASSES)
    if kind == "segmentation":
        options = {"num_classes": CLASSES, "ignore_index": -1, "average": "macro"}
        p = to_torch(logits.reshape(-1, CLASSES))
        expected["mean_iou"] = tmc.multiclass_jaccard_index(p, to_torch(y), **options)
        expected["pixel_accuracy"] = expected.pop("accuracy")
        del expected["macro_f1"]
    check(found, expected)


@pytest.mark.filterwarnings("ignore")  # torchmetrics' own
def test_several_labels_with_unknown_entries():
    rng = np.random.default_rng(2)
    logits, labeled = draw(rng, CLASSES), draw_labeled(rng)
    target = rng.integers(-1, 2, logits.shape).astype(np.int32)
    extra = {name: EXTRA[name] for name in ("auroc", "average_precision")}
    head = MultiLabel(CLASSES, partial=True, extra_metrics=extra)
    found = evaluate(head, logits, target, labeled)
    p, y = to_torch(logits).sigmoid(), to_torch(np.where(labeled[:, None], target, -1))
    options = {"num_labels": CLASSES, "ignore_index": -1}
    expected = {
        "macro_f1": tmc.multilabel_f1_score(p, y, average="macro", **options),
        "micro_f1": tmc.multilabel_f1_score(p, y, average="micro", **options),
        "auroc": tmc.multilabel_auroc(p, y, **options),
        "average_precision": tmc.multilabel_average_precision(p, y, **options),
    }
    check(found, expected)


def test_ordered_classes():
    rng = np.random.default_rng(3)
    logits, labeled = -np.sort(-draw(rng, CLASSES - 1), axis=1), draw_labeled(rng)
    target = rng.integers(0, CLASSES, len(logits)).astype(np.int32)
    found = evaluate(Ordinal(CLASSES), logits, target, labeled)
    guess, y = to_torch((logits > 0).sum(1))[labeled], to_torch(target)[labeled]
    expected = {
        "accuracy": tmc.multiclass_accuracy(guess, y, CLASSES, average="micro"),
        "mae": tm.mean_absolute_error(guess.double(), y.double()),
        "kappa": tmc.multiclass_cohen_kappa(guess, y, CLASSES, weights="quadratic"),
    }
    check(found, expected)


@pytest.mark.parametrize("mean", [0.0, 1e6])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_real_numbers(mean, shape):
    rng = np.random.default_rng(4)
    target, labeled = 5 * draw(rng, *shape) + np.float32(mean), draw_labeled(rng)
    prediction = target + draw(rng, *shape)
    extra = {
        "pearson": metrics.pearson,
        "spearman": metrics.spearman,
        "mape": metrics.mean_absolute_percentage_error,
    }
    head = Regression(shape=shape, mean=mean, scale=5.0, extra_metrics=extra)
    found = evaluate(head, prediction, target, labeled)
    p, y = to_torch(prediction)[labeled], to_torch(target)[labeled]
    expected = {
        "mae": tm.mean_absolute_error(p, y),
        "rmse": (tm.mean_squared_error(p, y, num_outputs=y[0].numel()) ** 0.5).mean(),
        "r2": tm.r2_score(p, y),
        "pearson": tm.pearson_corrcoef(p, y).mean(),
        "spearman": tm.spearman_corrcoef(p, y).mean(),
        "mape": tm.mean_absolute_percentage_error(p, y),
    }
    check(found, expected)


def test_depths():
    rng = np.random.default_rng(5)
    target, labeled = np.abs(draw(rng, 4, 6)) + 0.5, draw_labeled(rng)
    target[rng.random(target.shape) < 0.3] = 0
    prediction = target + draw(rng, 4, 6)
    found = evaluate(Depth((4, 6), mean=1.0, scale=2.0), prediction, target, labeled)
    measured = labeled[:, None, None] & (target > 0)
    p, y = to_torch(prediction)[measured], to_torch(target)[measured]
    expected = {
        "absolute_error": tm.mean_absolute_error(p, y),
        "relative_error": tm.mean_absolute_percentage_error(p, y),
        "rmse": tm.mean_squared_error(p, y) ** 0.5,
    }
    check(found, expected)
