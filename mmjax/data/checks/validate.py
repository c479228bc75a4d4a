"""Refuses data on which training would be meaningless, before anything is compiled."""

import warnings
from collections.abc import Callable, Mapping

import numpy as np

from mmjax.data.checks.array_checks import InvalidDataError
from mmjax.data.checks.validate_inputs import (
    check_layout,
    check_not_empty,
    check_some_modality,
    check_values,
)
from mmjax.data.checks.validate_targets import check_target
from mmjax.data.dataset import Modality, Task, split_parts
from mmjax.data.sampling.example_weights import check_weights, has_only_zero_weights
from mmjax.types import Batch

# Kinds whose targets are indices of classes.
_CLASS_INDEX_KINDS = ("classification", "ordinal", "sequence", "segmentation")


def validate_split(
    name: str,
    split: str,
    batch: Batch,
    modalities: Mapping[str, Modality],
    tasks: Mapping[str, Task],
    check_numbers: Callable[[Batch, str, Modality], None] = check_values,
) -> None:
    """Checks a whole split against what its modalities and tasks promise.

    What is missing may hold anything. Other modalities and tasks of the batch are not looked at.

    Args:
      name: name of the data set, for the message.
      split: name of the split, for the message.
      batch: all examples of the split, as NumPy arrays.
      modalities: the modalities that will be used.
      tasks: the tasks that will be used.
      check_numbers: checks the numbers of a modality.

    Raises:
      ValueError: naming the data set, the split, the modality or task, the first bad row, its
        value, and what would be right.

    Example:
      >>> present = np.array([True, True])
      >>> batch = Batch({"a": np.array([[1.0], [np.nan]])}, {"a": present}, {}, {}, {})
      >>> validate_split("toy", "train", batch, {"a": Modality((1,))}, {})
      Traceback (most recent call last):
      ValueError: toy, split 'train': modality 'a' has nan in row 1; every number must be finite.
    """
    batch, modalities = split_parts(batch, modalities)
    try:
        check_not_empty(batch, modalities)
        for modality in modalities:
            check_layout(batch, modality, modalities[modality])
            check_numbers(batch, modality, modalities[modality])
        for task in tasks:
            check_target(batch, task, tasks[task], batch.size)
            check_weights(batch, task)
        check_some_modality(batch, modalities)
    except InvalidDataError as error:
        raise ValueError(f"{name}, split {split!r}: {error}") from None


def check_label_variety(name: str, split: str, batch: Batch, tasks: Mapping[str, Task]) -> None:
    """Checks that the targets of a whole split have more than one value.

    A training split must have labels of every task, and of more than one class. Other splits get a
    warning, since they would measure nothing.

    Args:
      name: name of the data set, for the message.
      split: name of the split.
      batch: its targets, masks and weights; inputs are not looked at.
      tasks: the tasks that will be used.

    Raises:
      ValueError: naming the data set, the split and the task.
    """
    for task, spec in tasks.items():
        targets = np.asarray(batch.targets[task])[np.asarray(batch.labeled[task])]
        if spec.kind == "classification" and spec.shape:
            targets = targets.argmax(axis=1)  # the class with the largest share
        if len(targets) == 0:
            what = "has no labels"
        elif spec.kind in _CLASS_INDEX_KINDS and (only := _find_only_class(targets)) is not None:
            what = f"has labels of one class only, {spec.classes[only]!r}"
        elif split == "train" and has_only_zero_weights(batch, task):
            what = "has only labels of weight 0"
        else:
            continue
        message = f"{name}, split {split!r}: task {task!r} {what}."
        if split == "train":
            raise ValueError(f"{message} There is nothing to learn; leave the task out.")
        warnings.warn(message, stacklevel=2)


def _find_only_class(targets: np.ndarray) -> int | None:
    """Returns the class if all labels (indices from 0 on) have the same one, else None."""
    labels = targets[targets >= 0]
    return int(labels[0]) if len(labels) and (labels == labels[0]).all() else None
