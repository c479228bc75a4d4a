"""A modality as a user has it, an array or a list of arrays, becomes one padded array."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Num

from mmjax.data.columns import Text
from mmjax.data.dataset import Modality
from mmjax.data.decode import BYTES, tokens, typed
from mmjax.data.labels import missing_rows


class Column(NamedTuple):
    """The rows of one split's modality.

    Attributes:
      rows: [n, ...], or one array a row, which may differ in shape; missing ones are anything.
      here: where it is not missing.
      kind: type of the numbers.
      text: whether the rows were strings, which are sequences whatever their lengths.
    """

    rows: Num[np.ndarray, "n ..."] | list[np.ndarray]
    here: Bool[np.ndarray, " n"]
    kind: np.dtype
    text: bool = False


def as_column(split: str, name: str, raw: Any) -> Column:
    """Reads an array or a list, in which None, NaN all over, and masked rows are missing.

    Raises:
      ValueError: naming the split, the array and the row: of objects that are no numbers, or in
        part masked.
    """
    if isinstance(raw, np.ndarray) and raw.dtype.kind in "biuf":
        array = raw[:, None] if raw.ndim == 1 else raw
        here = ~missing_rows(array)
        _check_mask(split, name, array, here)
        array = typed(np.ma.getdata(array), f"{name!r} of split {split!r}")
        return Column(array, here, array.dtype)
    rows = [_row(value, f"row {i} of {split!r}: {name!r}") for i, value in enumerate(raw)]
    here = np.array([row is not None for row in rows], bool)
    kind = kind_of(row.dtype for row in rows if row is not None)
    text = any(isinstance(value, str | bytes) for value in raw)
    return Column([np.zeros(0) if row is None else row for row in rows], here, kind, text)


def kind_of(kinds: Iterable[np.dtype]) -> np.dtype:
    """The type for numbers of several types: float32 if any are floating-point, else int32."""
    found = set(kinds)
    if len(found) == 1:
        return found.pop()
    floating = any(kind.kind == "f" for kind in found) or not found
    return np.dtype(np.float32 if floating else np.int32)


def _check_mask(split: str, name: str, array: np.ndarray, here: Bool[np.ndarray, " n"]) -> None:
    partly = np.ma.getmaskarray(array).reshape(len(array), -1).any(axis=1) & here
    if partly.any():
        row = int(np.flatnonzero(partly)[0])
        raise ValueError(
            f"row {row} of {split!r}: {name!r} is masked in part; fill it, or mask it all."
        )


def _row(value: Any, what: str) -> np.ndarray | None:
    if value is None or value is np.ma.masked:
        return None
    if isinstance(value, str | bytes):
        try:
            return tokens(value, Text(""), {})
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
    try:
        row = np.atleast_1d(np.asarray(value))
    except ValueError:
        raise ValueError(f"{what} is ragged itself; every row must be an array.") from None
    if row.dtype.kind not in "biuf":
        raise ValueError(f"{what} has type {row.dtype}; it must be numbers, a string or None.")
    if row.size == 0 or (row.dtype.kind == "f" and np.isnan(row).all()):
        return None
    return typed(row, what)


def modality_of(
    name: str, columns: Mapping[str, Column], has_lengths: bool, given: Modality | None
) -> Modality:
    """What a modality is, over all splits.

    Raises:
      ValueError: naming the rows whose shapes do not fit together.
    """
    shapes = [
        (f"row {row} of {split!r}", shape)
        for split, column in columns.items()
        for row, shape in _shapes(column)
    ]
    if not shapes:
        raise ValueError(f"no example has modality {name!r}; leave it out.")
    first, shape = shapes[0]
    loose = has_lengths or all(isinstance(c.rows, list) for c in columns.values())
    for place, other in shapes:
        if other[loose:] != shape[loose:]:
            raise ValueError(
                f"{place}: modality {name!r} has shape {other}, but {shape} at {first}; only lists "
                "of sequences, or padded ones with lengths, may differ, and in their length only."
            )
    longest = max(s[0] for _, s in shapes)
    text = any(column.text for column in columns.values())
    sequence = has_lengths or text or any(s[0] != shape[0] for _, s in shapes)
    found = Modality((longest, *shape[1:]), sequence, BYTES if text else ())
    return found if given is None else _fitting(name, found, given)


def _fitting(name: str, found: Modality, given: Modality) -> Modality:
    fits = given.shape[1:] == found.shape[1:] and (
        given.shape[0] >= found.shape[0] if given.sequence else given == found
    )
    if not fits:
        raise ValueError(f"modality {name!r} is {found}, which does not fit the given {given}.")
    return given


def _shapes(column: Column) -> list[tuple[int, tuple[int, ...]]]:
    """The rows that are here and their shapes; of an array one row stands for all."""
    if isinstance(column.rows, np.ndarray):
        return [(0, column.rows.shape[1:])]
    return [(int(row), column.rows[row].shape) for row in np.flatnonzero(column.here)]


def padded(
    column: Column, spec: Modality, kind: np.dtype
) -> tuple[np.ndarray, Int[np.ndarray, " n"]]:
    """The rows as one array, zeros after the end of each, and their lengths."""
    rows, here = column.rows, column.here
    if isinstance(rows, np.ndarray) and rows.shape[1:] == spec.shape:
        return rows.astype(kind, copy=False), np.full(len(rows), spec.shape[0])
    whole = np.zeros((len(here), *spec.shape), kind)
    for i in np.flatnonzero(here).tolist():
        whole[i, : len(rows[i])] = rows[i]
    return whole, np.array([len(row) if h else 0 for row, h in zip(rows, here, strict=True)])


def as_lengths(split: str, name: str, raw: Any) -> Int[np.ndarray, " n"]:
    """An array of lengths.

    Raises:
      ValueError: if it is not one whole number a row.
    """
    lengths = np.asarray(raw)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise ValueError(
            f"{name!r} of split {split!r} is {lengths.dtype}{list(lengths.shape)}; it must be one "
            "whole number a row."
        )
    return lengths


def as_mask(split: str, name: str, raw: Any) -> Bool[np.ndarray, " n"]:
    """An array that says where something is.

    Raises:
      ValueError: if it is not one truth value a row.
    """
    mask = np.asarray(raw)
    if mask.ndim != 1 or mask.dtype != bool:
        raise ValueError(
            f"{name!r} of split {split!r} is {mask.dtype}{list(mask.shape)}; it must be one bool a "
            "row."
        )
    return mask
