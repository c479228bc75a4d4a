"""Measures how well a trained model knows what it knows, from every subset of its modalities."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from mmjax import metrics
from mmjax.data.dataset import Dataset, Task, get_split
from mmjax.metrics.flatten import CLASS_KINDS, compute_probabilities, flatten_labeled
from mmjax.modalities.robustness.padded_batches import (
    get_member_variables,
    iterate_padded_batches,
)
from mmjax.modalities.subsets import make_all_subsets, name_subset, predict_from_subsets
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
    """

    task: str
    subset: str
    examples: int
    temperature: Float[np.ndarray, " s"]
    temperature_of_all: Float[np.ndarray, " s"]
    values: Mapping[str, Float[np.ndarray, "3 s"]]
    reliability: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]
    risk_coverage: Mapping[str, np.ndarray]


def measure_calibration(
    trained: Trained, data: Dataset | None = None, *, split: str = "test"
) -> list[SubsetCalibration]:
    """Measures the calibration of every classification from every subset of the modalities.

    Temperatures are fitted to the validation split only. Examples without any modality of a subset
    are left out of it. Of more than five modalities the subsets are all, all but one, and single
    ones. Each seed is measured by itself.

    Args:
      trained: one seed or several.
      data: the data set; None: that of the run.
      split: the split to measure.

    Raises:
      ValueError: no task is a classification, or a split is unknown or does not fit.

    Example:
      >>> trained = mmjax.load("runs/digits")  # doctest: +SKIP
      >>> [c.subset for c in measure_calibration(trained)][:2]  # doctest: +SKIP
      ['image+speech+text', 'speech+text']
    """
    tasks = [t for t, task in sorted(trained.spec.tasks.items()) if _has_classes(task)]
    if not tasks:
        raise ValueError(
            f"no task has one class per label, only {sorted(trained.spec.tasks)}: calibration is "
            f"measured of {', '.join(CLASS_KINDS)}."
        )
    data = trained.experiment.data if data is None else data
    subsets = choose_subsets(len(trained.model.encoders))
    fitted = _predict_split(trained, data, "validation", subsets, tasks)
    measured = _predict_split(trained, data, split, subsets, tasks)
    names = [name_subset(subset, sorted(trained.model.encoders)) for subset in subsets]
    return [
        _measure_subset(task, names[i], fitted[task], measured[task], i)
        for task in tasks
        for i in range(len(subsets))
    ]


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


class _SplitPredictions(NamedTuple):
    """Logits [seeds subsets n ...], targets [n ...] and which count [subsets n] of one task."""

    logits: np.ndarray
    targets: np.ndarray
    counts: Bool[np.ndarray, "k n"]

    def select(self, seed: int, subset: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the logits and targets of the examples that count."""
        counts = self.counts[subset]
        return self.logits[seed, subset][counts], self.targets[counts]


def _has_classes(task: Task) -> bool:
    # A classification with a shape has shares of classes as its targets.
    return task.kind in CLASS_KINDS and not (task.kind == "classification" and task.shape)


def _predict_split(
    trained: Trained, data: Dataset, split: str, subsets: np.ndarray, tasks: list[str]
) -> dict[str, _SplitPredictions]:
    """Predicts a split from every subset with every seed."""

    @jax.jit
    def predict(variables: Any, batch: Any) -> dict[str, Any]:
        return predict_from_subsets(
            trained.model, variables, batch, subsets, compute_dtype=trained.compute_dtype
        )

    members = [get_member_variables(trained, i) for i in range(len(trained.seeds))]
    parts: dict[str, list[Any]] = {task: [] for task in tasks}
    for batch, _ in iterate_padded_batches(trained, get_split(data, split)):
        present = np.stack([batch.present[m] for m in sorted(trained.model.encoders)])
        has_modality = (subsets.astype(int) @ present.astype(int)) > 0
        inputs = batch._replace(targets={}, labeled={})
        outputs = jax.device_get([predict(variables, inputs) for variables in members])
        for task in tasks:
            logits = np.stack([output[task] for output in outputs])
            counts = has_modality & batch.labeled[task][None]
            parts[task].append((logits, batch.targets[task], counts))
    predictions = {}
    for task, batches in parts.items():
        of_batches = list(zip(*batches, strict=True))
        predictions[task] = _SplitPredictions(
            np.concatenate(of_batches[0], axis=2),
            np.concatenate(of_batches[1]),
            np.concatenate(of_batches[2], axis=1),
        )
    return predictions


def _measure_subset(
    task: str, name: str, fitted: _SplitPredictions, measured: _SplitPredictions, subset: int
) -> SubsetCalibration:
    """Measures one subset, the first of which has all modalities."""
    values: dict[str, list[list[float]]] = {measure: [] for measure in MEASURES}
    temperatures, before, after, risks = [], [], [], []
    for seed in range(len(measured.logits)):
        of_all = metrics.fit_temperature(*fitted.select(seed, 0))
        own = metrics.fit_temperature(*fitted.select(seed, subset))
        temperatures.append((own, of_all))
        logits, targets = measured.select(seed, subset)
        for measure, compute in MEASURES.items():
            values[measure].append([compute(logits / t, targets) for t in (1.0, of_all, own)])
        before.append(_compute_hits(logits, targets))
        after.append(_compute_hits(logits / own, targets))
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
