"""Weights of examples: how much each one counts in the training loss of a task.

A task's loss is the mean of its labeled examples' losses under their weights, so only ratios of
weights matter. Metrics, and the losses of evaluation, are not weighted.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from mmjax.data.checks.array_checks import InvalidDataError, check_numeric, check_shape
from mmjax.data.load.tables.table_files import Table, parse_number
from mmjax.data.load.targets.labels import PlaceFormatter
from mmjax.types import Batch

# Sums of weights, and weights times losses, stay far from the limits of float32.
_MIN_WEIGHT, _MAX_WEIGHT = 1e-20, 1e20


def check_weight_names(weights: Mapping[str, str], targets: Iterable[str]) -> None:
    """Raises ValueError if there are weights of a task that the data set does not have."""
    for task in weights:
        if task not in (known := sorted(targets)):
            raise ValueError(f"weights names {task!r}; the targets are {known}.")


def read_weight_cells(
    table: Table, rows: Sequence[int], weights: Mapping[str, str]
) -> dict[str, Float[np.ndarray, " n"]]:
    """Reads the weights of some rows of a table; NaN where a cell is empty.

    Args:
      table: the table.
      rows: the numbers of the rows.
      weights: {task: column}.

    Raises:
      ValueError: naming the row and the column of a cell that is not a number.
    """
    numbers: dict[str, Float[np.ndarray, " n"]] = {}
    for task, column in weights.items():
        numbers[task] = np.full(len(rows), np.nan)
        for i, row in enumerate(rows):
            cell = table.columns[column][row]
            try:
                numbers[task][i] = np.nan if cell is None else parse_number(cell)
            except ValueError as error:
                place = f"{table.place(row)}, column {column!r}"
                raise ValueError(f"{place}: weight of task {task!r}: {error}") from None
    return numbers


def read_weight_array(split: str, name: str, raw: Any) -> Float[np.ndarray, " n"]:
    """Reads an array or a list of numbers in float64; masked entries and None become NaN.

    Raises:
      ValueError: naming the split and the array, if it is not one number per row.

    Example:
      >>> read_weight_array("train", "trust", [1, None, 0.5])
      array([1. , nan, 0.5])
    """
    values = raw if isinstance(raw, np.ndarray) else [np.nan if v is None else v for v in raw]
    try:
        wide = np.ma.asarray(values, np.float64)
        numbers = np.asarray(np.ma.filled(wide, np.nan))
    except (TypeError, ValueError):
        numbers = np.zeros(())
    if numbers.ndim != 1:
        raise ValueError(f"{name!r} of split {split!r} must be one number per row: a weight.")
    return numbers


def encode_weights(
    task: str,
    weights: Float[np.ndarray, " n"],
    labeled: Bool[np.ndarray, " n"],
    place: PlaceFormatter,
) -> Float[np.ndarray, " n"]:
    """Returns the weights in float32; rows without a label get 0, whatever their weight is.

    Args:
      task: name of the task, for messages.
      weights: as they were read; NaN where there is none.
      labeled: which rows have a label.
      place: returns where a row is, for messages.

    Raises:
      ValueError: naming the place of a label whose weight is missing, negative or extreme.

    Example:
      >>> encode_weights("pet", np.array([2.0, np.nan]), np.array([True, False]), str)
      array([2., 0.], dtype=float32)
    """
    if (row := _find_bad_weight(weights, labeled)) is not None:
        reason = _describe_bad_weight(f"weight of task {task!r}", weights[row])
        raise ValueError(f"{place(row)}: {reason}")
    return np.where(labeled, weights, 0).astype(np.float32)


def check_weights(batch: Batch, task: str) -> None:
    """Checks one task's weights in a batch, if it has any; unlabeled examples are not checked.

    Raises:
      InvalidDataError: naming the first bad row and its weight.
    """
    if task not in batch.weights:
        return
    what = f"weight of task {task!r}"
    weights, labeled = np.asarray(batch.weights[task]), np.asarray(batch.labeled[task])
    check_shape(what, weights, labeled.shape)
    check_numeric(what, weights)
    if (row := _find_bad_weight(weights, labeled)) is not None:
        raise InvalidDataError(f"row {row}: {_describe_bad_weight(what, weights[row])}")


def has_only_zero_weights(batch: Batch, task: str) -> bool:
    """Checks whether a task has weights, all of which are 0 at its labeled examples."""
    if task not in batch.weights:
        return False
    return not np.asarray(batch.weights[task])[np.asarray(batch.labeled[task])].any()


def _find_bad_weight(
    weights: Shaped[np.ndarray, " n"], labeled: Bool[np.ndarray, " n"]
) -> int | None:
    """Returns the first labeled row whose weight is neither 0 nor in the range; None if all are."""
    wide = weights.astype(np.float64)
    # Written so that NaN is bad.
    bad = labeled & ~((wide == 0) | ((wide >= _MIN_WEIGHT) & (wide <= _MAX_WEIGHT)))
    return int(np.flatnonzero(bad)[0]) if bad.any() else None


def _describe_bad_weight(what: str, value: Any) -> str:
    if np.isnan(value):
        return (
            f"{what} is missing, but the row has a label; give it a weight, or 0 to leave it out."
        )
    return (
        f"{what} is {value}; it must be 0, or from {_MIN_WEIGHT:g} to {_MAX_WEIGHT:g}: only the "
        "ratios of weights matter, so rescale them."
    )
