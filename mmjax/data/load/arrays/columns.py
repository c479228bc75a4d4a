"""Reading of a modality that is an array or a list: its gaps, its lengths and its masks."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from mmjax.data.kinds.text import Text, tokenize
from mmjax.data.load.arrays.map_scans import MapScans
from mmjax.data.load.arrays.modalities import Column, choose_32_bit_dtype, choose_common_dtype
from mmjax.data.load.decode import convert_to_32_bits
from mmjax.data.normalize import iterate_chunks
from mmjax.masks import make_length_mask

_NO_SCANS = MapScans(None)


def read_column(
    split: str,
    name: str,
    raw: Any,
    present: Bool[np.ndarray, " n"] | None = None,
    lengths: tuple[str, Any] | None = None,
    scans: MapScans = _NO_SCANS,
) -> Column:
    """Reads an array or a list; rows that are None, all NaN or masked are missing.

    An array is not copied, so that a memory map stays on disk.

    Args:
      split: name of the split, for messages.
      name: name of the array, for messages.
      raw: the array or list.
      present: which rows are present; None: all.
      lengths: the name and the array of the lengths, if the sequences are padded already.
      scans: finds missing rows, and keeps what it has found in memory maps.

    Raises:
      ValueError: naming the split, the array and the row, if it is not numeric, masked in part,
        beyond 32 bits, or shorter than its length.

    Example:
      >>> column = read_column("train", "walk", [[1.0, 2.0], None])
      >>> column.present.tolist(), column.rows[0].dtype  # until it has been standardized
      ([True, False], dtype('float64'))
    """
    present = np.ones(len(raw), bool) if present is None else present
    if isinstance(raw, np.ndarray) and raw.dtype.kind in "biuf":
        return _read_array_column(split, name, raw, present, lengths, scans)
    rows: list[np.ndarray | None] = []
    for i, value in enumerate(raw):
        rows.append(_read_row(value, f"row {i} of {split!r}: {name!r}") if present[i] else None)
    is_present = np.array([row is not None for row in rows], bool)
    ends = None
    if lengths is not None:
        padded_sizes = [0 if row is None else len(row) for row in rows]
        ends = read_lengths(split, *lengths, is_present, padded_sizes)
        for i, (row, end) in enumerate(zip(rows, ends.tolist(), strict=True)):
            is_present[i] = row is not None and not _is_blank(row[:end])
            rows[i] = _zero_padding(row, end)
    arrays, dtypes = [], set()
    for i, row in enumerate(rows):
        array, dtype = _narrow_row(row, f"row {i} of {split!r}: {name!r}")
        arrays.append(array)
        if is_present[i]:
            dtypes.add(dtype)
    if np.dtype(np.uint8) in dtypes and any(dtype.kind == "f" for dtype in dtypes):
        raise ValueError(
            f"{name!r} of split {split!r} has rows of uint8 and rows of floating-point numbers; "
            "store all in one type and on one scale."
        )
    is_text = any(isinstance(value, str | bytes) for value in raw)
    return Column(arrays, is_present, choose_common_dtype(dtypes), is_text, ends)


def _read_array_column(
    split: str,
    name: str,
    raw: np.ndarray,
    present: Bool[np.ndarray, " n"],
    lengths: tuple[str, Any] | None,
    scans: MapScans,
) -> Column:
    array = raw[:, None] if raw.ndim == 1 else raw  # one number per row is a vector of length 1
    if 0 in array.shape[1:]:
        raise ValueError(
            f"{name!r} of split {split!r} has the shape {raw.shape}; an example needs at least one "
            "number."
        )

    def find_blank_rows(is_real: Bool[np.ndarray, "..."], *settings: np.ndarray) -> np.ndarray:
        return scans.recall(array, "gaps", settings, lambda: [_find_blank_rows(array, is_real)])[0]

    is_present, ends = present & ~find_blank_rows(np.ones(len(array), bool)), None
    is_real = is_present
    if lengths is not None:
        ends = read_lengths(split, *lengths, is_present, np.full(len(array), array.shape[1]))
        is_real = make_length_mask(ends, array.shape[1])
        # Padding must not decide whether the row is missing.
        is_present = is_present & ~find_blank_rows(is_real, ends)
        is_real = is_present[:, None] & is_real
    _check_mask(split, name, array, is_real)
    values = np.ma.getdata(array)
    if not values.dtype.isnative or values.dtype == np.longdouble:
        kind = values.dtype.newbyteorder("=")
        values = values.astype(np.float64 if kind == np.longdouble else kind)
    return Column(values, is_present, choose_32_bit_dtype(values.dtype), lengths=ends)


def _find_blank_rows(array: np.ndarray, is_real: Bool[np.ndarray, "..."]) -> Bool[np.ndarray, " n"]:
    """Finds the rows whose real values are all masked or NaN, some rows at a time."""
    blank = np.zeros(len(array), bool)
    is_masked, may_be_nan = np.ma.is_masked(array), array.dtype.kind == "f"
    if not is_masked and not may_be_nan and is_real.ndim == 1:
        return blank
    for chunk in iterate_chunks(array):
        values = array[chunk]
        absent = np.ma.getmaskarray(values) if is_masked else np.zeros(values.shape, bool)
        if may_be_nan:
            absent = absent | np.isnan(np.ma.getdata(values))
        real = is_real[chunk]
        absent = absent | ~real.reshape(*real.shape, *(1,) * (values.ndim - real.ndim))
        blank[chunk] = absent.reshape(len(values), -1).all(axis=1)
    return blank


def _zero_padding(row: np.ndarray | None, end: int) -> np.ndarray | None:
    """Returns a sequence with zeros after its end."""
    if row is None or end == len(row):
        return row
    row = row.copy()
    row[end:] = 0
    return row


def _check_mask(split: str, name: str, array: np.ndarray, is_real: Bool[np.ndarray, "..."]) -> None:
    if not np.ma.is_masked(array):
        return
    inner_axes = tuple(range(is_real.ndim, array.ndim))
    partly = np.ma.getmaskarray(array).any(axis=inner_axes) & is_real
    if partly.any():
        row = int(np.argwhere(partly)[0][0])
        raise ValueError(
            f"row {row} of {split!r}: {name!r} is masked in part; fill it, or mask it all."
        )


def _read_row(value: Any, what: str) -> np.ndarray | None:
    if value is None or value is np.ma.masked:
        return None
    if isinstance(value, str | bytes):
        try:
            return tokenize(value, Text(""), {})
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
    try:
        row = np.atleast_1d(np.asarray(value))
    except ValueError:
        raise ValueError(f"{what} is ragged itself; every row must be an array.") from None
    if row.dtype.kind not in "biuf":
        raise ValueError(
            f"{what} has type {row.dtype}; it must be numbers of one of NumPy's own types, such as "
            f"float32, a string or None.{_suggest_number(row.dtype)}"
        )
    return None if _is_blank(row) else row


def _narrow_row(row: np.ndarray | None, what: str) -> tuple[np.ndarray, np.dtype]:
    """Returns a row, empty if it is missing, and the type of at most 32 bits that it will have."""
    if row is None:
        return np.zeros(0), np.dtype(np.float64)
    array = convert_to_32_bits(row, what)
    # Double precision stays until it has been standardized.
    is_wide = row.dtype.kind == "f" and row.dtype.itemsize > 4
    return row.astype(np.float64) if is_wide else array, array.dtype


def _suggest_number(dtype: np.dtype) -> str:
    """Says how to convert times to numbers."""
    if dtype.kind not in "mM":
        return ""
    return f" Convert times to seconds: x.astype('{dtype.kind}8[us]').astype(float) / 1e6."


def _is_blank(row: np.ndarray) -> bool:
    """Checks whether a row is empty or all NaN."""
    return row.size == 0 or (row.dtype.kind == "f" and bool(np.isnan(row).all()))


def read_lengths(
    split: str, name: str, raw: Any, present: Bool[np.ndarray, " n"], longest: Any
) -> Int[np.ndarray, " n"]:
    """Reads an array of lengths; those of missing sequences may be anything and become 0.

    Args:
      split: name of the split, for messages.
      name: name of the array, for messages.
      raw: the lengths.
      present: which rows have a sequence.
      longest: number of steps of each sequence with its padding.

    Raises:
      ValueError: if it is not one whole number per row, or one is not from 0 to `longest`.
    """
    lengths = _read_vector(raw, "iu", split, name, "one whole number per row")
    # Compared before the conversion to 32 bits, which would turn 2**32 + 1 into 1.
    bad = present & ((lengths < 0) | (lengths > np.asarray(longest)))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"row {row} of {split!r}: {name!r} is {lengths[row]}; it must be 0 to "
            f"{np.asarray(longest)[row]}."
        )
    return np.where(present, lengths, 0).astype(np.int32)


def read_mask(split: str, name: str, raw: Any) -> Bool[np.ndarray, " n"]:
    """Reads an array of truth values.

    Raises:
      ValueError: if it is not one truth value per row.
    """
    return _read_vector(raw, "b", split, name, "one bool per row")


def _read_vector(raw: Any, kinds: str, split: str, name: str, wanted: str) -> np.ndarray:
    """Reads an array of one axis without masked rows, whose dtype is of one of the given kinds."""
    array = np.asarray(raw)
    if array.ndim != 1 or array.dtype.kind not in kinds or np.ma.is_masked(raw):
        gaps = " with masked rows" if np.ma.is_masked(raw) else ""
        raise ValueError(
            f"{name!r} of split {split!r} is {array.dtype}{list(array.shape)}{gaps}; it must be "
            f"{wanted}."
        )
    return array
