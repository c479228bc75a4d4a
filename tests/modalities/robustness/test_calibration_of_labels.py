"""Calibration of several labels and of ordered classes, against NumPy and SciPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize, special

from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.encoders import MLPEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import MultiLabel, Ordinal
from mmjax.metrics import compute_calibration_curve
from mmjax.modalities.robustness.calibration_by_subset import measure_calibration
from mmjax.modalities.robustness.class_logits import convert_to_class_logits
from mmjax.modalities.robustness.write_calibration import write_calibration
from mmjax.model import Model
from mmjax.runs.trained import make_trained
from mmjax.types import Batch

LABELS = ("rock", "jazz", "rare")


def make_batch(examples, seed):
    rng = np.random.default_rng(seed)
    tags = rng.choice([-1, 0, 1], (examples, 3), p=[0.2, 0.5, 0.3]).astype(np.int32)
    tags[:, 2] = -1 if seed else tags[:, 2]  # known only in the training split
    present = {"a": rng.random(examples) < 0.8}
    return Batch(
        inputs={m: rng.normal(size=(examples, 3)).astype(np.float32) for m in "ab"},
        present=present | {"b": ~present["a"] | (rng.random(examples) < 0.8)},
        lengths={},
        targets={"tags": tags, "grade": rng.integers(0, 4, examples).astype(np.int32)},
        labeled={"tags": rng.random(examples) < 0.9, "grade": rng.random(examples) < 0.9},
    )


@pytest.fixture(scope="module")
def trained():
    sizes = {"train": 20, "validation": 70, "test": 90}
    tasks = {
        "tags": Task("multilabel", LABELS, partial=True),
        "grade": Task("ordinal", tuple("abcd")),
    }
    splits = {name: Arrays(make_batch(n, i)) for i, (name, n) in enumerate(sizes.items())}
    model = Model(
        encoders={m: MLPEncoder((4,)) for m in "ab"},
        fusion=Concat(),
        heads={"tags": MultiLabel(3, partial=True), "grade": Ordinal(4)},
    )
    experiment = Experiment(
        data=Dataset("songs", {m: Modality((3,)) for m in "ab"}, tasks, splits),
        model=model,
        optimizer=optax.sgd(0.1),
        eval_batch_size=32,
    )
    batch = jax.tree.map(jnp.asarray, splits["train"].batch)

    def init(seed):
        return model.init(jax.random.key(seed), *batch[:3], train=False)

    return make_trained(experiment, jax.vmap(init)(jnp.array([3])), [3])


def test_ordered_classes_get_their_probabilities():
    logits = np.array([[3.0, 0.5, -900.0], [40.0, 40.0, 39.0], [-1.0, -2.0, -300.0]])
    found = special.softmax(convert_to_class_logits("ordinal", logits), axis=-1)
    above = np.hstack([np.ones((3, 1)), special.expit(logits), np.zeros((3, 1))])
    # Two equal thresholds count as 1e-6 apart, which has no weight next to the other classes.
    np.testing.assert_allclose(found, -np.diff(above, axis=1), atol=1e-12)


@pytest.mark.slow
def test_labels_are_pooled_and_measured_one_by_one(trained, tmp_path):
    calibrations = measure_calibration(trained)
    names = [(c.task, c.subset, c.label) for c in calibrations]
    assert names == [
        *(("grade", subset, "") for subset in ("a+b", "a", "b")),
        *(("tags", subset, "") for subset in ("a+b", "a", "b")),
        *(("tags", "a+b", label) for label in LABELS[:2]),
    ]

    def predict(split, task):
        batch = trained.experiment.data.splits[split].batch
        labeled = batch.labeled[task]
        outputs = trained.compute_outputs(batch)[task].astype(np.float64)
        return outputs[labeled], batch.targets[task][labeled]

    for c in calibrations[3], *calibrations[6:]:
        chosen = slice(None) if not c.label else [LABELS.index(c.label)]
        (fit, fit_targets), (logits, targets) = (
            (z[:, chosen][y[:, chosen] >= 0], y[:, chosen][y[:, chosen] >= 0])
            for z, y in (predict("validation", "tags"), predict("test", "tags"))
        )
        best = optimize.minimize_scalar(
            lambda log_t, z=fit * (2 * fit_targets - 1): (
                -special.log_expit(z / np.exp(log_t)).sum()
            ),
            bounds=(np.log(0.01), np.log(100)),
            method="bounded",
            options={"xatol": 1e-9},
        )
        assert c.temperature[0] == pytest.approx(np.exp(best.x), rel=1e-3)
        nll = -special.log_expit(logits * (2 * targets - 1)).mean()
        assert c.values["nll"][0, 0] == pytest.approx(nll, rel=1e-5)
        brier = np.square(special.expit(logits) - targets).mean()
        assert c.values["brier"][0, 0] == pytest.approx(brier, rel=1e-5)
        correct = (logits > 0) == targets
        assert c.values["accuracy"][0, 0] == correct.mean()
        curve = compute_calibration_curve(special.expit(np.abs(logits)), correct)
        gaps = np.abs(curve["confidence"] - curve["accuracy"]) @ curve["examples"]
        assert c.values["ece"][0, 0] == pytest.approx(gaps / len(targets), rel=1e-4)

    logits, targets = predict("test", "grade")
    ends = np.ones((len(logits), 1))
    p = -np.diff(np.hstack([ends, special.expit(logits), 0 * ends]), axis=1)
    values = calibrations[0].values
    assert values["accuracy"][0, 0] == (p.argmax(axis=1) == targets).mean()
    nll = -np.log(p[np.arange(len(p)), targets]).mean()
    assert values["nll"][0, 0] == pytest.approx(nll, rel=1e-5)

    words = write_calibration(tmp_path, calibrations)
    assert "Of its 2 labels, " in words
    text = (tmp_path / "calibration.md").read_text()
    assert text.count("\n| tags ") == 3 and text.count("\n| tags: ") == 2
