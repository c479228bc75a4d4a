"""Checks of the targets of a split against what its tasks promise."""

import numpy as np

from mmjax.data.checks.array_checks import (
    InvalidDataError,
    check_finite,
    check_fits_32_bits,
    check_integers,
    check_known,
    check_mask,
    check_shape,
    find_first_row,
)
from mmjax.data.dataset import Task
from mmjax.types import Batch


def check_target(batch: Batch, task: str, spec: Task, examples: int) -> None:
    """Checks shape, type and values of one task's targets; what is unlabeled may hold anything."""
    what = f"target of task {task!r}"
    check_known("task", task, batch.targets, batch.labeled)
    y, labeled = np.asarray(batch.targets[task]), np.asarray(batch.labeled[task])
    check_mask(f"labeled of task {task!r}", labeled, examples)
    if spec.kind == "regression":
        _check_regression(what, y, labeled, spec.shape)
    elif spec.kind == "classification" and spec.shape:
        _check_shares(what, y, labeled, spec.shape)
    elif spec.kind in ("classification", "ordinal"):
        _check_classification(what, y, labeled, len(spec.classes))
    elif spec.kind in ("sequence", "segmentation"):
        check_shape(what, y, (examples, *spec.shape))
        _check_dense_classes(what, y, labeled, len(spec.classes))
    elif spec.kind == "depth":
        check_shape(what, y, (examples, *spec.shape))
        _check_depth(what, y, labeled)
    else:
        _check_multilabel(what, y, labeled, spec)


def _check_regression(
    what: str, y: np.ndarray, labeled: np.ndarray, shape: tuple[int, ...]
) -> None:
    if not np.issubdtype(y.dtype, np.floating):
        raise InvalidDataError(
            f"{what} has type {y.dtype}; a regression needs floating-point numbers."
        )
    check_shape(what, y, (len(labeled), *(shape or y.shape[1:])))
    check_finite(f"{what} is", y, labeled)
    check_fits_32_bits(what, y, labeled)


def _check_shares(what: str, y: np.ndarray, labeled: np.ndarray, shape: tuple[int, ...]) -> None:
    _check_regression(what, y, labeled, shape)
    bad = labeled & ((y < 0).any(axis=1) | (np.abs(y.sum(axis=1) - 1) > 1e-3))
    if bad.any():
        row = find_first_row(bad)
        raise InvalidDataError(
            f"{what} is {y[row]} in row {row}; the shares must be positive and sum to 1."
        )


def _check_classification(what: str, y: np.ndarray, labeled: np.ndarray, classes: int) -> None:
    check_shape(what, y, labeled.shape)
    check_integers(what, y)
    bad = labeled & ((y < 0) | (y >= classes))
    if bad.any():
        row = find_first_row(bad)
        raise InvalidDataError(f"{what} is {y[row]} in row {row}; it must be 0 to {classes - 1}.")


def _check_multilabel(what: str, y: np.ndarray, labeled: np.ndarray, spec: Task) -> None:
    check_shape(what, y, (len(labeled), len(spec.classes)))
    bad = labeled[:, None] & (y != 0) & (y != 1) & ~(spec.partial & (y == -1))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InvalidDataError(
            f"{what} is {y[row, column]} in row {row}, class {column}; it must be 0 or 1."
        )


def _check_dense_classes(what: str, y: np.ndarray, labeled: np.ndarray, classes: int) -> None:
    """Checks class indices per step or pixel, of which -1 has no label."""
    check_integers(what, y)
    y = y.reshape(len(y), -1)
    bad = labeled & ((y < -1) | (y >= classes)).any(axis=1)
    if bad.any():
        row = find_first_row(bad)
        value = y[row][(y[row] < -1) | (y[row] >= classes)][0]
        raise InvalidDataError(
            f"{what} is {value} somewhere in row {row}; it must be 0 to {classes - 1}, or -1 "
            "for an unlabeled row."
        )
    _check_some_label(what, y >= 0, labeled, "-1")


def _check_depth(what: str, y: np.ndarray, labeled: np.ndarray) -> None:
    """Checks positive numbers per pixel, of which 0 has no label."""
    if not np.issubdtype(y.dtype, np.floating):
        raise InvalidDataError(f"{what} has type {y.dtype}; a depth needs floating-point numbers.")
    check_finite(f"{what} is", y, labeled)
    check_fits_32_bits(what, y, labeled)
    y = y.reshape(len(y), -1)
    bad = labeled & (y < 0).any(axis=1)
    if bad.any():
        row = find_first_row(bad)
        raise InvalidDataError(f"{what} is {y[row].min()} in row {row}; it must be positive, or 0.")
    _check_some_label(what, y > 0, labeled, "0")


def _check_some_label(
    what: str, has_label: np.ndarray, labeled: np.ndarray, unlabeled: str
) -> None:
    """Refuses rows that count as labeled and have no label at any step or pixel."""
    bad = labeled & ~has_label.any(axis=1)
    if bad.any():
        raise InvalidDataError(
            f"{what} is {unlabeled} everywhere in row {find_first_row(bad)}; set `labeled` to "
            "False there."
        )
