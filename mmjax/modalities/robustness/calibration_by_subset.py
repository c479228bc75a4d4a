"""Measures how well a trained model knows what it knows, from every subset of its modalities."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mmjax import metrics
from mmjax.data.dataset import Dataset
from mmjax.metrics.flatten import compute_probabilities, flatten_labeled
from mmjax.modalities.robustness.class_logits import (
    CALIBRATED_KINDS,
    SubsetLogits,
    has_class_labels,
    predict_class_logits,
)
from mmjax.modalities.subsets import make_all_subsets, name_subset
from mmjax.runs.trained import Trained

_MAX_MODALITIES = 5  # of which all subsets are evaluated
_CURVE_POINTS = 200
SCALINGS = ("before", "temperature of all", "own temperature")


def _compute_accuracy(prediction: Any, target: Any) -> float:
    logits, classes = flatten_labeled(prediction, target)
    return float((logits.argmax(axis=-1) == classes).mean())


def _compute_confidence(prediction: Any, target: Any) -> float:
    logits, _ = flatten_labeled(prediction, target)
    return float(compute_probabilities(logits).max(axis=-1).mean())


MEASURES = {
    "accuracy": _compute_accuracy,
    "confidence": _compute_confidence,
    "ece": metrics.calibration_error,
    "adaptive ece": metrics.adaptive_calibration_error,
    "classwise ece": metrics.classwise_calibration_error,
    "nll": metrics.negative_log_likelihood,
    "brier": metrics.brier_score,
    "aurc": metrics.risk_coverage_area,
    "excess aurc": metrics.excess_risk_coverage_area,
}


class SubsetCalibration(NamedTuple):
    """The calibration of one task from one subset of the modalities.

    Attributes:
      task: its name.
      subset: its modalities, joined by "+".
      examples: number of labeled examples that have a modality of the subset.
      temperature: fitted to the validation split with this subset, per seed.
      temperature_of_all: fitted with all modalities, per seed.
      values: {measure: [scalings seeds]}, in the order of `SCALINGS`.
      reliability: curves of `mmjax.metrics.compute_calibration_curve` over all seeds together,
        before and after scaling by the own temperature.
      risk_coverage: {"coverage", "risk"} before scaling, means over seeds.
      label: one label of a task with several labels per example; "" for the whole task, whose
        labels are pooled.
    """

    task: str
    subset: str
    examples: int
    temperature: Float[np.ndarray, " s"]
    temperature_of_all: Float[np.ndarray, " s"]
    values: Mapping[str, Float[np.ndarray, "3 s"]]
    reliability: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]
    risk_coverage: Mapping[str, np.ndarray]
    label: str = ""


def measure_calibration(
    trained: Trained, data: Dataset | None = None, *, split: str = "test"
) -> list[SubsetCalibration]:
    """Measures the calibration of every task of classes from every subset of the modalities.

    Each of several labels per example is a classification of two classes, 0 and 1; all labels are
    pooled, and each is measured by itself from all modalities. Ordered classes are measured by
    their probabilities.

    Temperatures are fitted to the validation split only. Examples without any modality of a subset
    are left out of it. Of more than five modalities the subsets are all, all but one, and single
    ones. Each seed is measured by itself.

    Args:
      trained: one seed or several.
      data: the data set; None: that of the run.
      split: the split to measure.

    Raises:
      ValueError: no task has classes, or a split is unknown or does not fit.

    Example:
      >>> trained = mmjax.load("runs/digits")  # doctest: +SKIP
      >>> [c.subset for c in measure_calibration(trained)][:2]  # doctest: +SKIP
      ['image+speech+text', 'speech+text']
    """
    tasks = [t for t, task in sorted(trained.spec.tasks.items()) if has_class_labels(task)]
    if not tasks:
        raise ValueError(
            f"no task has classes as labels, only {sorted(trained.spec.tasks)}: calibration is "
            f"measured of {', '.join(CALIBRATED_KINDS)}."
        )
    data = trained.experiment.data if data is None else data
    subsets = choose_subsets(len(trained.model.encoders))
    fitted = predict_class_logits(trained, data, "validation", subsets, tasks)
    measured = predict_class_logits(trained, data, split, subsets, tasks)
    names = [name_subset(subset, sorted(trained.model.encoders)) for subset in subsets]
    calibrations = []
    for task in tasks:
        for i, name in enumerate(names):
            calibrations.append(_measure_subset(task, name, fitted[task], measured[task], i))
        if trained.spec.tasks[task].kind == "multilabel":
            labels = trained.spec.tasks[task].classes
            calibrations += _measure_labels(task, names[0], labels, fitted[task], measured[task])
    return calibrations


def choose_subsets(count: int) -> Bool[np.ndarray, "k m"]:
    """Chooses the subsets to measure: all modalities first, the smallest subsets last.

    Example:
      >>> choose_subsets(2).astype(int).tolist()
      [[1, 1], [1, 0], [0, 1]]
    """
    if count <= _MAX_MODALITIES:
        subsets = make_all_subsets(count)[1:]
    else:
        single = np.eye(count, dtype=bool)
        subsets = np.concatenate([np.ones((1, count), bool), ~single, single])
    return subsets[np.argsort(-subsets.sum(axis=1), kind="stable")]


def _measure_labels(
    task: str, name: str, labels: Sequence[str], fitted: SubsetLogits, measured: SubsetLogits
) -> list[SubsetCalibration]:
    """Measures each label from all modalities, if both splits have examples that know it."""
    calibrations = []
    for i, label in enumerate(labels):
        parts = fitted.select_label(i), measured.select_label(i)
        if all(part.counts[0].any() for part in parts):
            calibrations.append(_measure_subset(task, name, *parts, 0)._replace(label=label))
    return calibrations


def _measure_subset(
    task: str, name: str, fitted: SubsetLogits, measured: SubsetLogits, subset: int
) -> SubsetCalibration:
    """Measures one subset, the first of which has all modalities."""
    values: dict[str, list[list[float]]] = {measure: [] for measure in MEASURES}
    temperatures, before, after, risks = [], [], [], []
    for seed in range(len(measured.logits)):
        # With all modalities: what a user has who does not know which will be missing.
        of_all = metrics.fit_temperature(*fitted.select(seed, 0))
        of_subset = metrics.fit_temperature(*fitted.select(seed, subset))
        temperatures.append((of_subset, of_all))
        logits, targets = measured.select(seed, subset)
        for measure, compute in MEASURES.items():
            values[measure].append([compute(logits / t, targets) for t in (1.0, of_all, of_subset)])
        before.append(_compute_hits(logits, targets))
        after.append(_compute_hits(logits / of_subset, targets))
        risks.append(metrics.compute_risk_coverage(*before[-1]))
    own_temperature, temperature_of_all = np.array(temperatures).T
    return SubsetCalibration(
        task,
        name,
        int(measured.counts[subset].sum()),
        own_temperature,
        temperature_of_all,
        {measure: np.array(rows).T for measure, rows in values.items()},
        (_pool_reliability(before), _pool_reliability(after)),
        _average_risk(risks),
    )


_Hits = tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]


def _compute_hits(prediction: np.ndarray, target: np.ndarray) -> _Hits:
    """Returns the confidence of every label, and whether the predicted class is right."""
    logits, classes = flatten_labeled(prediction, target)
    return compute_probabilities(logits).max(axis=-1), logits.argmax(axis=-1) == classes


def _pool_reliability(hits: list[_Hits]) -> Mapping[str, np.ndarray]:
    confidence, correct = (np.concatenate(parts) for parts in zip(*hits, strict=True))
    return metrics.compute_calibration_curve(confidence, correct)


def _average_risk(curves: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Averages the curves of all seeds at some 200 coverages."""
    size = len(curves[0]["coverage"])
    chosen = np.unique(np.linspace(0, size - 1, min(size, _CURVE_POINTS)).round().astype(int))
    risk = np.mean([curve["risk"][chosen] for curve in curves], axis=0)
    return {"coverage": curves[0]["coverage"][chosen], "risk": risk}
