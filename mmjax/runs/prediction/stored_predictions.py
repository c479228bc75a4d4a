"""Reads the predictions on the test split that `--predictions` stored, and compares two arms."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from mmjax import files, metrics
from mmjax.data.load.tables.parquet_files import import_pyarrow
from mmjax.report.example_statistics import (
    Bootstrap,
    McNemar,
    bootstrap_difference,
    compute_mcnemar,
)


def _compute_accuracy(predicted: np.ndarray, target: np.ndarray) -> float:
    return float((predicted == target).mean())


def _compute_macro_f1(predicted: np.ndarray, target: np.ndarray) -> float:
    classes = 1 + max(int(predicted.max()), int(target.max()))
    return metrics.macro_f1(**metrics.count_per_class(target, predicted, classes))


_CLASS_METRICS = {"accuracy": _compute_accuracy, "macro_f1": _compute_macro_f1}
_NUMBER_METRICS: Mapping[str, Callable[..., float]] = {
    "mae": metrics.mean_absolute_error,
    "rmse": metrics.root_mean_squared_error,
    "r2": metrics.r2,
}


class StoredPredictions(NamedTuple):
    """Predictions of one task on the labeled test examples.

    Attributes:
      target: names of classes, or numbers.
      predicted: the same, by seed.
    """

    target: Shaped[np.ndarray, " n"]
    predicted: Shaped[np.ndarray, "s n"]


class ExampleComparison(NamedTuple):
    """Comparison of two arms on the same test examples.

    Attributes:
      examples: number of labeled examples.
      bootstrap: difference of the metric, second - first, with its interval over examples.
      mcnemar: the test per seed, in the order of the seeds; () for a task of numbers.
    """

    examples: int
    bootstrap: Bootstrap
    mcnemar: tuple[McNemar, ...]


def read_test_predictions(
    homes: Sequence[Path], task: str, seeds: Sequence[int]
) -> StoredPredictions | None:
    """Reads the stored predictions of a task with one class or number per example.

    Args:
      homes: the directory of an arm, or those of its folds, whose test splits are joined.
      task: the name of the task.
      seeds: the seeds.

    Returns:
      None if a file is missing, or has no labels of the task.

    Raises:
      DamagedFileError: a file is damaged.
      ValueError: the seeds have different test splits.
    """
    paths = [[home / f"predictions-seed{seed}.parquet" for home in homes] for seed in seeds]
    if not paths or not all(path.is_file() for folds in paths for path in folds):
        return None
    parts = [[_read_columns(path, task) for path in folds] for folds in paths]
    if any(part is None for folds in parts for part in folds):
        return None
    joined = [[np.concatenate(column) for column in zip(*folds, strict=True)] for folds in parts]
    target = joined[0][0]
    for other, _ in joined:
        if not np.array_equal(target, other):
            raise ValueError(f"{homes[0]}: the seeds' predictions are of different test examples.")
    return StoredPredictions(target, np.stack([predicted for _, predicted in joined]))


def _read_columns(path: Path, task: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Reads labels and predictions of the labeled examples; None if the columns are missing."""
    pyarrow = import_pyarrow()
    names = [f"{task}/label", f"{task}/prediction"]
    with files.name_damaged_file(path):
        try:
            if not set(names) <= set(pyarrow.parquet.read_schema(path).names):
                return None
            table = pyarrow.parquet.read_table(path, columns=names)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(str(error)) from error
        columns = [table[name].to_pylist() for name in names]
    labeled = [(y, p) for y, p in zip(*columns, strict=True) if y is not None and y == y]
    empty = "" if labeled and isinstance(labeled[0][0], str) else np.nan  # without any modality
    label = np.array([y for y, _ in labeled])
    return label, np.array([empty if p is None else p for _, p in labeled])


def compare_examples(
    metric: str, first: StoredPredictions, second: StoredPredictions
) -> ExampleComparison | None:
    """Compares two arms on the same test examples.

    Args:
      metric: "accuracy" or "macro_f1" of classes; "mae", "rmse" or "r2" of numbers.
      first: the predictions of the baseline.
      second: those of the other arm, of the same seeds.

    Returns:
      None if the metric is not one of these, or no example has a label.

    Raises:
      ValueError: the arms have different test examples.
    """
    is_number = first.target.dtype.kind == "f"
    known: Mapping[str, Any] = _NUMBER_METRICS if is_number else _CLASS_METRICS
    if metric not in known or not len(first.target):
        return None
    if not np.array_equal(first.target, second.target):
        raise ValueError("the stored predictions are of different test examples.")
    values = [first.target, first.predicted, second.predicted]
    tests: tuple[McNemar, ...] = ()
    if not is_number:
        _, codes = np.unique(np.concatenate([v.ravel() for v in values]), return_inverse=True)
        bounds = np.cumsum([v.size for v in values])[:-1]
        pieces = np.split(codes.ravel(), bounds)
        values = [piece.reshape(v.shape) for piece, v in zip(pieces, values, strict=True)]
        right = [predicted == values[0] for predicted in values[1:]]
        tests = tuple(map(compute_mcnemar, *right))
    target, one, other = values
    bootstrap = bootstrap_difference(known[metric], one, other, target)
    return ExampleComparison(len(target), bootstrap, tests)
