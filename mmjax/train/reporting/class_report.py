"""Reports of a run's classes on the test split: a table per task, confusions and calibration.

`ARM/test/TASK-classes.csv`      precision, recall, F1 and number of test examples of every class
`ARM/test/TASK-confusion.png`    of tasks with one class per example, up to 1,000 classes
`ARM/test/TASK-calibration.png`  of classifications: accuracy and confidence

Seeds are pooled: counts are sums over the seeds' predictions. Tasks whose statistics have
no classes get no files, and tasks with several labels or places per example only the table.
"""

import csv
import io
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Integer

from mmjax import files
from mmjax.data.dataset import Task
from mmjax.metrics.class_counts import count_per_class, f1
from mmjax.printing.escapes import escape_control_characters

_COUNTS = ("tp", "fp", "fn")
_CHOICES = ("target", "predicted", "confidence")
_MAX_CLASSES = 1000  # largest matrix that is drawn
_MAX_NAME_LENGTH = 100  # bytes of a file name

ClassStatistics = dict[str, dict[str, np.ndarray]]  # {task: {name: values}}


def select_class_statistics(statistics: Mapping[str, Mapping[str, Any]]) -> ClassStatistics:
    """Selects the statistics of a split that class reports need, without unlabeled examples.

    Args:
      statistics: {task: {name: counts per class, or values `PerExample`}}.

    Example:
      >>> from mmjax.metrics import PerExample
      >>> values, labeled = np.array([2, 7, 1]), np.array([True, False, True])
      >>> kept = {"target": PerExample(values, labeled), "predicted": PerExample(values, labeled)}
      >>> select_class_statistics({"mood": kept, "size": {"loss": 1.0}})
      {'mood': {'target': array([2, 1]), 'predicted': array([2, 1])}}
    """
    selected: ClassStatistics = {}
    for task, values in statistics.items():
        if "predicted" in values and "target" in values:
            selected[task] = {name: values[name].select() for name in _CHOICES if name in values}
        elif all(name in values for name in _COUNTS):
            selected[task] = {name: np.asarray(values[name]) for name in _COUNTS}
    return selected


def write_class_reports(
    directory: Path, tasks: Mapping[str, Task], seeds: Sequence[ClassStatistics]
) -> None:
    """Writes the files of every task that has classes and labels on the test split.

    Args:
      directory: the directory of the files.
      tasks: the tasks of the data set, with the names of their classes.
      seeds: `select_class_statistics` of each seed.
    """
    for number, task in enumerate(seeds[0]):
        parts = [statistics[task] for statistics in seeds]
        path = directory / _make_file_stem(task, number)
        if "tp" in parts[0]:
            counts = jax.tree.map(lambda *counts: np.sum(counts, axis=0), *parts)
            _write_class_table(path, counts, tasks[task].classes, len(seeds))
        else:
            merged = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
            _write_choices(path, task, merged, tasks[task].classes, len(seeds))


def _write_choices(
    path: Path, task: str, values: dict[str, np.ndarray], classes: Sequence[str], seeds: int
) -> None:
    """Writes table and figures of a task with one class per example, if there are labels."""
    from mmjax.train.reporting import class_figures  # imports Matplotlib

    target, predicted = values["target"], values["predicted"]
    if not len(target):
        return
    names = classes or [str(i) for i in range(1 + max(target.max(), predicted.max()))]
    counts = count_per_class(target, predicted, len(names))
    _write_class_table(path, counts, names, seeds)
    if len(names) <= _MAX_CLASSES:
        counted = _count_pairs(target, predicted, len(names))
        figure = class_figures.draw_confusions(task, counted, names, seeds)
        class_figures.save_png(figure, Path(f"{path}-confusion.png"))
    if "confidence" in values:
        confidence, correct = values["confidence"], predicted == target
        figure = class_figures.draw_calibration(task, confidence, correct, seeds)
        class_figures.save_png(figure, Path(f"{path}-calibration.png"))


def _count_pairs(
    target: Integer[np.ndarray, " n"], predicted: Integer[np.ndarray, " n"], classes: int
) -> Integer[np.ndarray, "c c"]:
    """Counts the examples per target (row) and predicted class (column)."""
    pairs = target.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def _make_file_stem(task: str, number: int) -> str:
    """Makes a part of a file name of a task's name; its number, if the name is too long."""
    stem = re.sub(r"[^\w.+= -]", lambda match: urllib.parse.quote(match[0], safe=""), task)
    return stem if len(stem.encode()) <= _MAX_NAME_LENGTH else f"task{number}"


def _write_class_table(
    path: Path, counts: Mapping[str, np.ndarray], classes: Sequence[str], seeds: int
) -> None:
    """Writes precision, recall, F1 and number of examples per class as CSV, if there are labels.

    A precision without predictions, or a recall without targets, is 0, as in scikit-learn.
    """
    tp, fp, fn = (np.asarray(counts[name], np.float64) for name in _COUNTS)
    if not (tp + fn).sum():
        return
    names = classes or [str(i) for i in range(len(tp))]
    scores = tp / np.maximum(tp + fp, 1), tp / np.maximum(tp + fn, 1), f1(tp, fp, fn)
    examples = (tp + fn) / seeds  # every seed has the same test split
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "precision", "recall", "f1", "examples"])
    for i, name in enumerate(names):
        figures = [f"{score[i]:.6f}" for score in scores]
        writer.writerow([escape_control_characters(name), *figures, f"{examples[i]:.0f}"])
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(Path(f"{path}-classes.csv"), text.getvalue())
