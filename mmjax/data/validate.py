"""Refuses data that would train to nonsense, before anything is compiled."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax import dtypes

from mmjax.data.dataset import Modality, Task
from mmjax.data.normalize import real
from mmjax.types import Batch


def validate(
    name: str,
    split: str,
    batch: Batch,
    modalities: Mapping[str, Modality],
    tasks: Mapping[str, Task],
) -> None:
    """Checks a whole split against what its modalities and tasks promise.

    What is missing may hold anything. Modalities and tasks that are not named are not looked at.

    Args:
      name: the data set's, for the message.
      split: the split's, for the message.
      batch: all examples of the split, as NumPy arrays.
      modalities: those that will be used.
      tasks: those that will be used.

    Raises:
      ValueError: naming the data set, the split, the modality or task, the first bad row, its
        value, and what would be right.
    """
    try:
        _not_empty(batch, modalities)
        for modality in modalities:
            _input(batch, modality, modalities[modality])
        for task in tasks:
            _target(batch, task, tasks[task], batch.size)
        _some_modality(batch, modalities)
    except _DataError as bad:
        raise ValueError(f"{name}, split {split!r}: {bad}") from None


def check_variety(name: str, split: str, batch: Batch, tasks: Mapping[str, Task]) -> None:
    """Checks that the targets of a whole split tell more than one thing.

    A training split must have labels of every task, and of more than one class; other splits get a
    warning, since they would measure nothing.

    Args:
      name: the data set's, for the message.
      split: the split's.
      batch: its targets, and where they are labels; inputs are not looked at.
      tasks: those that will be used.

    Raises:
      ValueError: naming the data set, the split and the task.
    """
    for task, spec in tasks.items():
        here = np.asarray(batch.targets[task])[np.asarray(batch.labeled[task])]
        if len(here) == 0:
            what = "has no labels"
        elif spec.kind in INDICES and (only := _only_class(here)) is not None:
            what = f"has labels of one class only, {spec.classes[only]!r}"
        else:
            continue
        message = f"{name}, split {split!r}: task {task!r} {what}."
        if split == "train":
            raise ValueError(f"{message} There is nothing to learn; leave the task out.")
        warnings.warn(message, stacklevel=2)


# Kinds whose targets are indices of classes.
INDICES = ("classification", "ordinal", "sequence", "segmentation")


class _DataError(Exception):
    """What is wrong, without where."""


def _not_empty(batch: Batch, modalities: Mapping[str, Modality]) -> None:
    for modality in modalities:
        _known("modality", modality, batch.present, batch.inputs)
        if len(batch.present[modality]) == 0:
            raise _DataError("it has no examples.")


def _some_modality(batch: Batch, modalities: Mapping[str, Modality]) -> None:
    some = np.any([batch.present[m] for m in modalities], axis=0)
    if not some.all():
        raise _DataError(
            f"row {_first(~some)} has none of the modalities {', '.join(sorted(modalities))}; "
            "every example needs at least one."
        )


def _input(batch: Batch, modality: str, spec: Modality) -> None:
    what = f"modality {modality!r}"
    x, present = np.asarray(batch.inputs[modality]), np.asarray(batch.present[modality])
    _mask(f"present of {what}", present, batch.size)
    _shape(what, x, (len(present), *spec.shape))
    _numeric(what, x)
    where = present
    if spec.sequence:
        _lengths(batch, modality, spec, present)
        where = real(present, np.asarray(batch.lengths[modality]), spec)
    _finite(f"{what} has", x, where)
    _fits_32_bits(what, x, where)


def _lengths(batch: Batch, modality: str, spec: Modality, present: np.ndarray) -> None:
    what = f"length of modality {modality!r}"
    if modality not in batch.lengths:
        raise _DataError(f"modality {modality!r} is a sequence and has no lengths.")
    lengths, longest = np.asarray(batch.lengths[modality]), spec.shape[0]
    _shape(what, lengths, present.shape)
    _integers(what, lengths)
    bad = present & ((lengths < 1) | (lengths > longest))
    if bad.any():
        row = _first(bad)
        raise _DataError(f"{what} is {lengths[row]} in row {row}; it must be 1 to {longest}.")


def _target(batch: Batch, task: str, spec: Task, examples: int) -> None:
    what = f"target of task {task!r}"
    _known("task", task, batch.targets, batch.labeled)
    y, labeled = np.asarray(batch.targets[task]), np.asarray(batch.labeled[task])
    _mask(f"labeled of task {task!r}", labeled, examples)
    if spec.kind == "regression":
        _regression(what, y, labeled)
    elif spec.kind in ("classification", "ordinal"):
        _classification(what, y, labeled, len(spec.classes))
    elif spec.kind in ("sequence", "segmentation"):
        _shape(what, y, (examples, *spec.shape))
        _places(what, y, labeled, len(spec.classes))
    elif spec.kind == "depth":
        _shape(what, y, (examples, *spec.shape))
        _depth(what, y, labeled)
    else:
        _multilabel(what, y, labeled, len(spec.classes))


def _regression(what: str, y: np.ndarray, labeled: np.ndarray) -> None:
    if not np.issubdtype(y.dtype, np.floating):
        raise _DataError(f"{what} has type {y.dtype}; a regression needs floating-point numbers.")
    _shape(what, y, (len(labeled), *y.shape[1:]))
    _finite(f"{what} is", y, labeled)
    _fits_32_bits(what, y, labeled)


def _classification(what: str, y: np.ndarray, labeled: np.ndarray, classes: int) -> None:
    _shape(what, y, labeled.shape)
    _integers(what, y)
    bad = labeled & ((y < 0) | (y >= classes))
    if bad.any():
        row = _first(bad)
        raise _DataError(f"{what} is {y[row]} in row {row}; it must be 0 to {classes - 1}.")


def _multilabel(what: str, y: np.ndarray, labeled: np.ndarray, classes: int) -> None:
    _shape(what, y, (len(labeled), classes))
    bad = labeled[:, None] & (y != 0) & (y != 1)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise _DataError(
            f"{what} is {y[row, column]} in row {row}, class {column}; it must be 0 or 1."
        )


def _places(what: str, y: np.ndarray, labeled: np.ndarray, classes: int) -> None:
    _integers(what, y)
    y = y.reshape(len(y), -1)
    bad = labeled & ((y < -1) | (y >= classes)).any(axis=1)
    if bad.any():
        row = _first(bad)
        value = y[row][(y[row] < -1) | (y[row] >= classes)][0]
        raise _DataError(
            f"{what} is {value} somewhere in row {row}; it must be 0 to {classes - 1}, or -1 "
            "where there is no label."
        )
    _some_label(what, y >= 0, labeled, "-1")


def _depth(what: str, y: np.ndarray, labeled: np.ndarray) -> None:
    if not np.issubdtype(y.dtype, np.floating):
        raise _DataError(f"{what} has type {y.dtype}; a depth needs floating-point numbers.")
    _finite(f"{what} is", y, labeled)
    _fits_32_bits(what, y, labeled)
    y = y.reshape(len(y), -1)
    bad = labeled & (y < 0).any(axis=1)
    if bad.any():
        row = _first(bad)
        raise _DataError(f"{what} is {y[row].min()} in row {row}; it must be positive, or 0.")
    _some_label(what, y > 0, labeled, "0")


def _some_label(what: str, here: np.ndarray, labeled: np.ndarray, none: str) -> None:
    bad = labeled & ~here.any(axis=1)
    if bad.any():
        raise _DataError(
            f"{what} is {none} all over row {_first(bad)}; set `labeled` to False there."
        )


def _only_class(targets: np.ndarray) -> int | None:
    """The one class among indices of which negative ones are no labels, if there is but one."""
    found = targets[targets >= 0]
    return int(found[0]) if len(found) and (found == found[0]).all() else None


def _known(kind: str, key: str, *parts: Mapping[str, np.ndarray]) -> None:
    if any(key not in part for part in parts):
        have = ", ".join(sorted(parts[0])) or "none"
        raise _DataError(f"it has no {kind} {key!r}; it has {have}.")


def _mask(what: str, mask: np.ndarray, examples: int) -> None:
    _shape(what, mask, (examples,))
    if mask.dtype != bool:
        raise _DataError(f"{what} has type {mask.dtype}; it must be bool.")


def _shape(what: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise _DataError(f"{what} has shape {array.shape}; it must be {shape}.")


def _integers(what: str, array: np.ndarray) -> None:
    if not np.issubdtype(array.dtype, np.integer):
        raise _DataError(f"{what} has type {array.dtype}; it must be integer.")


def _numeric(what: str, array: np.ndarray) -> None:
    """Refuses what JAX takes for no numbers, or takes in part."""
    kind = array.dtype.kind
    # bfloat16 and its kin are of NumPy's kind V, as structured types are.
    if kind not in "biuf" and not dtypes.issubdtype(array.dtype, np.floating):
        raise _DataError(f"{what} has type {array.dtype}; it must be real numbers.")
    if not array.dtype.isnative:
        raise _DataError(
            f"{what} has type {array.dtype.str}; give it in the machine's own byte order, as by "
            "astype(x.dtype.newbyteorder('='))."
        )


def _finite(what: str, array: np.ndarray, where: np.ndarray) -> None:
    """Refuses NaN and infinity in the places that are real; the sum is a fast first look."""
    if not np.issubdtype(array.dtype, np.inexact):
        return
    with np.errstate(all="ignore"):
        if np.isfinite(array.sum()):
            return
    row, value = _first_bad(~np.isfinite(array), array, where)
    if value is not None:
        raise _DataError(f"{what} {value} in row {row}; every number must be finite.")


def _fits_32_bits(what: str, array: np.ndarray, where: np.ndarray) -> None:
    """Refuses numbers that JAX, which has 32 bits, would wrap or make infinite."""
    wide = array.dtype in (np.int64, np.uint64, np.float64, np.longdouble)
    if not wide or not array.size:
        return
    limits: Any = np.finfo(np.float32) if array.dtype.kind == "f" else np.iinfo(np.int32)
    # The minimum of NaN, which padding may hold, is NaN: such an array gets the second look.
    if limits.min <= array.min() and array.max() <= limits.max:
        return
    row, value = _first_bad((array < limits.min) | (array > limits.max), array, where)
    if value is not None:
        raise _DataError(f"{what} has {value} in row {row}, which is beyond 32 bits.")


def _first_bad(bad: np.ndarray, array: np.ndarray, where: np.ndarray) -> tuple[int, Any]:
    """Returns the row and the value of the first bad number in a real place, or (0, None)."""
    bad = bad & where.reshape(*where.shape, *(1,) * (array.ndim - where.ndim))
    if not bad.any():
        return 0, None
    row = int(np.argwhere(bad)[0][0])
    return row, array[row][bad[row]][0]


def _first(bad: np.ndarray) -> int:
    return int(np.flatnonzero(bad)[0])
