"""Infers the modalities of arrays or lists of arrays, and pads their rows to one array."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Num

from mmjax.data.dataset import Modality
from mmjax.data.load.decode import BYTE_TOKEN_NAMES
from mmjax.masks import pad_ragged


class Column(NamedTuple):
    """The rows of one split's modality.

    Attributes:
      rows: [n, ...] as they were given, or one array per row, which may differ in shape; what is
        missing or padding is arbitrary.
      present: where the modality is not missing.
      dtype: the type of at most 32 bits that the numbers will get.
      is_text: whether the rows were strings, which are sequences whatever their lengths.
      lengths: of sequences that were padded already; 0 for missing ones.
    """

    rows: Num[np.ndarray, "n ..."] | list[np.ndarray]
    present: Bool[np.ndarray, " n"]
    dtype: np.dtype
    is_text: bool = False
    lengths: Int[np.ndarray, " n"] | None = None


def choose_32_bit_dtype(dtype: np.dtype) -> np.dtype:
    """Chooses the type to which numbers are converted: uint8 stays, others become float32 or int32.

    Example:
      >>> choose_32_bit_dtype(np.dtype(np.float64))
      dtype('float32')
    """
    if dtype == np.uint8:
        return dtype
    return np.dtype(np.float32 if dtype.kind == "f" else np.int32)


def choose_common_dtype(dtypes: Iterable[np.dtype]) -> np.dtype:
    """Chooses one type for several: float32 if any is floating-point, else int32.

    Example:
      >>> choose_common_dtype([np.dtype(np.uint8), np.dtype(np.float32)])
      dtype('float32')
    """
    distinct = set(dtypes)
    if len(distinct) == 1:
        return distinct.pop()
    floating = any(dtype.kind == "f" for dtype in distinct) or not distinct
    return np.dtype(np.float32 if floating else np.int32)


def infer_modality(
    name: str, columns: Mapping[str, Column], has_lengths: bool, given: Modality | None
) -> Modality:
    """Infers a modality from all splits, or checks the given one.

    Raises:
      ValueError: naming the rows whose shapes do not fit together.
    """
    shapes = []
    for split, column in columns.items():
        shapes += [(f"row {row} of {split!r}", shape) for row, shape in _list_row_shapes(column)]
    if not shapes:
        raise ValueError(f"no example has modality {name!r}; leave it out.")
    first, shape = shapes[0]
    may_differ = has_lengths or all(isinstance(c.rows, list) for c in columns.values())
    for row, other in shapes:
        if other[may_differ:] != shape[may_differ:]:
            raise ValueError(
                f"{row}: modality {name!r} has shape {other}, but {shape} at {first}; only lists "
                "of sequences, or padded ones with lengths, may differ, and in their length only."
            )
    # Strings are sequences even if all happen to have one length.
    longest = max(s[0] for _, s in shapes)
    is_text = any(column.is_text for column in columns.values())
    sequence = has_lengths or is_text or any(s[0] != shape[0] for _, s in shapes)
    inferred = Modality((longest, *shape[1:]), sequence, BYTE_TOKEN_NAMES if is_text else ())
    return inferred if given is None else _check_given_modality(name, inferred, given)


def _check_given_modality(name: str, inferred: Modality, given: Modality) -> Modality:
    fits = given.shape[1:] == inferred.shape[1:] and (
        given.shape[0] >= inferred.shape[0] if given.sequence else given == inferred
    )
    if not fits:
        raise ValueError(f"modality {name!r} is {inferred}, which does not fit the given {given}.")
    return given


def _list_row_shapes(column: Column) -> list[tuple[int, tuple[int, ...]]]:
    """Lists the present rows and their shapes; for an array, one row represents all."""
    if isinstance(column.rows, np.ndarray):
        return [(0, column.rows.shape[1:])]
    return [(int(row), column.rows[row].shape) for row in np.flatnonzero(column.present)]


def pad_rows(column: Column, spec: Modality) -> tuple[np.ndarray, Int[np.ndarray, " n"]]:
    """Pads the rows with zeros to one array; an array that already has the shape is not copied.

    Returns:
      The array [n, *shape], which keeps double precision, and the lengths of the rows before
      padding [n].
    """
    rows = column.rows
    if isinstance(rows, np.ndarray) and rows.shape[1:] == spec.shape:
        return rows, np.full(len(rows), spec.shape[0])
    present_rows = [row if p else None for row, p in zip(rows, column.present, strict=True)]
    is_wide = any(row is not None and row.dtype == np.float64 for row in present_rows)
    dtype = np.dtype(np.float64) if is_wide else column.dtype
    lengths = np.array([0 if row is None else len(row) for row in present_rows])
    return pad_ragged(present_rows, spec.shape, dtype), lengths
