"""Hints at what a user probably meant, where data of another form were given."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.dataset import Task
from mmjax.data.describe.announce import announce_once
from mmjax.data.load.foreign_types import is_frame
from mmjax.types import Batch

_MANY_CLASSES = 30  # whole numbers: below it, they are likely names
_MIN_EXAMPLES_PER_CLASS = 20
_CHECKED_VALUES = 10_000


def check_splits(splits: Any, names: Sequence[str]) -> None:
    """Refuses a table, or the arrays of one split, in the place of {split: arrays}.

    Raises:
      ValueError: saying which function takes it, or how to write it.
    """
    if is_frame(splits):
        raise ValueError(
            f"from_arrays got a {type(splits).__name__}; it needs {{split: arrays}}. Store one "
            "table as Parquet for mmjax.data.from_table, which also draws the splits."
        )
    if not isinstance(splits, Mapping):
        raise ValueError(
            f"from_arrays got a {type(splits).__name__}; it needs {{split: arrays}}, such as "
            "{'train': {'x': x, 'y': y}, 'validation': {...}, 'test': {...}}."
        )
    if "train" not in splits and set(names) <= set(splits):
        raise ValueError(
            f"from_arrays got the arrays {sorted(map(str, splits))} without a split; it needs "
            "{split: arrays}, such as {'train': {'x': x, 'y': y}, 'validation': {...}, 'test': "
            "{...}}. mmjax.data.from_table reads one file, and draws the splits."
        )


def warn_about_inputs_as_targets(
    name: str, inputs: Mapping[str, Sequence[str]], targets: Mapping[str, Sequence[str]]
) -> None:
    """Warns if an input reads what a target reads, since the model can copy it.

    Args:
      name: name of the data set.
      inputs: {modality: the columns that it reads}.
      targets: {task: the columns that it reads}.
    """
    for task, columns in targets.items():
        for modality, others in inputs.items():
            for column in sorted(set(columns) & set(others)):
                warnings.warn(
                    f"{name}: {column!r} is the target of task {task!r} and an input of modality "
                    f"{modality!r}, so that a model can copy it; leave it out of one.",
                    stacklevel=3,
                )


def note_unusual_task(name: str, task: str, spec: Task, train: Batch) -> None:
    """Prints a note about an inferred task whose values look like those of another kind.

    Args:
      name: name of the data set.
      task: name of the task.
      spec: what was inferred.
      train: the training split's targets and masks.
    """
    values = train.targets[task][train.labeled[task]]
    if spec.kind == "regression" and values.ndim == 1:
        distinct = np.unique(values[:_CHECKED_VALUES])
        if len(distinct) <= _MANY_CLASSES and (distinct == np.round(distinct)).all():
            announce_once(
                f"{name}: target {task!r} is a regression, as its type is floating-point; its "
                f"{len(distinct)} values are whole: give integers or names if they are classes"
            )
    if spec.kind == "classification" and _are_counts(spec, len(values)):
        announce_once(
            f"{name}: target {task!r} has {len(spec.classes)} whole numbers for classes; if it is "
            "a count or an amount, give floating-point numbers for a regression"
        )


def _are_counts(spec: Task, labels: int) -> bool:
    """Checks whether classes are many whole numbers, most of which have few examples."""
    are_numbers = all(c.lstrip("-").isdecimal() for c in spec.classes)
    few = labels < _MIN_EXAMPLES_PER_CLASS * len(spec.classes)
    return are_numbers and few and len(spec.classes) > _MANY_CLASSES
