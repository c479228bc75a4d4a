"""Checks of the targets of a split against what its tasks promise."""

import numpy as np

from mmjax.data.array_checks import (
    _DataError,
    _finite,
    _first,
    _fits_32_bits,
    _integers,
    _known,
    _mask,
    _shape,
)
from mmjax.data.dataset import Task
from mmjax.types import Batch


def _target(batch: Batch, task: str, spec: Task, examples: int) -> None:
    """Checks shape, type and values of one task's targets; what is unlabeled may hold anything."""
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
    """Checks class indices per step or pixel, of which -1 has no label."""
    _integers(what, y)
    y = y.reshape(len(y), -1)
    bad = labeled & ((y < -1) | (y >= classes)).any(axis=1)
    if bad.any():
        row = _first(bad)
        value = y[row][(y[row] < -1) | (y[row] >= classes)][0]
        raise _DataError(
            f"{what} is {value} somewhere in row {row}; it must be 0 to {classes - 1}, or -1 "
            "if there is no label."
        )
    _some_label(what, y >= 0, labeled, "-1")


def _depth(what: str, y: np.ndarray, labeled: np.ndarray) -> None:
    """Checks positive numbers per pixel, of which 0 has no label."""
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


def _some_label(what: str, has_label: np.ndarray, labeled: np.ndarray, unlabeled: str) -> None:
    """Refuses rows that count as labeled and have no label at any step or pixel."""
    bad = labeled & ~has_label.any(axis=1)
    if bad.any():
        raise _DataError(
            f"{what} is {unlabeled} everywhere in row {_first(bad)}; set `labeled` to False there."
        )
