"""Reading of a modality that is an array or a list of arrays into one padded array."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Num

from mmjax.data.dataset import Modality
from mmjax.data.kinds.text import Text, tokenize
from mmjax.data.load.decode import BYTE_TOKEN_NAMES, convert_to_32_bits
from mmjax.data.load.labels import find_missing_rows
from mmjax.masks import make_length_mask, pad_ragged


class Column(NamedTuple):
    """The rows of one split's modality.

    Attributes:
      rows: [n, ...], or one array per row, which may differ in shape; missing ones are arbitrary.
      present: where the modality is not missing.
      dtype: type of the numbers.
      is_text: whether the rows were strings, which are sequences whatever their lengths.
      lengths: of sequences that were padded already; 0 for missing ones.
    """

    rows: Num[np.ndarray, "n ..."] | list[np.ndarray]
    present: Bool[np.ndarray, " n"]
    dtype: np.dtype
    is_text: bool = False
    lengths: Int[np.ndarray, " n"] | None = None


def read_column(
    split: str,
    name: str,
    raw: Any,
    present: Bool[np.ndarray, " n"] | None = None,
    lengths: tuple[str, Any] | None = None,
) -> Column:
    """Reads an array or a list; rows that are None, all NaN or masked are missing.

    Missing rows, and values after the end of a sequence, may hold anything; they become 0.

    Args:
      split: name of the split, for messages.
      name: name of the array, for messages.
      raw: the array or list.
      present: which rows are present; None: all.
      lengths: the name and the array of the lengths, if the sequences are padded already.

    Raises:
      ValueError: naming the split, the array and the row, if it is not numeric, masked in part,
        beyond 32 bits, or shorter than its length.

    Example:
      >>> column = read_column("train", "walk", [[1.0, 2.0], None])
      >>> column.present.tolist(), column.rows[0].dtype
      ([True, False], dtype('float32'))
    """
    present = np.ones(len(raw), bool) if present is None else present
    if isinstance(raw, np.ndarray) and raw.dtype.kind in "biuf":
        return _read_array_column(split, name, raw, present, lengths)
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
        array = (
            np.zeros(0)
            if row is None
            else convert_to_32_bits(row, f"row {i} of {split!r}: {name!r}")
        )
        arrays.append(array)
        if is_present[i]:
            dtypes.add(array.dtype)
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
) -> Column:
    array = raw[:, None] if raw.ndim == 1 else raw  # one number per row is a vector of length 1
    if 0 in array.shape[1:]:
        raise ValueError(
            f"{name!r} of split {split!r} has the shape {raw.shape}; an example needs at least one "
            "number."
        )
    is_present, ends = ~find_missing_rows(array) & present, None
    is_real = is_present
    if lengths is not None:
        ends = read_lengths(split, *lengths, is_present, np.full(len(array), array.shape[1]))
        is_real = make_length_mask(ends, array.shape[1])
        padding = np.broadcast_to(~_broadcast_over_last_axes(is_real, array), array.shape)
        # Padding must not decide whether the row is missing.
        is_present = is_present & ~find_missing_rows(np.ma.array(array, mask=padding))
        is_real = is_present[:, None] & is_real
    _check_mask(split, name, array, is_real)
    array = np.ma.getdata(array)
    if not is_real.all():
        array = np.where(_broadcast_over_last_axes(is_real, array), array, 0)
        array = array.astype(raw.dtype, copy=False)  # `where` may widen it
    array = convert_to_32_bits(array, f"{name!r} of split {split!r}")
    return Column(array, is_present, array.dtype, lengths=ends)


def _broadcast_over_last_axes(
    mask: Bool[np.ndarray, "..."], array: np.ndarray
) -> Bool[np.ndarray, "..."]:
    """Reshapes a mask of the first axes of an array so that it broadcasts over the others."""
    return mask.reshape(*mask.shape, *(1,) * (array.ndim - mask.ndim))


def _zero_padding(row: np.ndarray | None, end: int) -> np.ndarray | None:
    """Returns a sequence with zeros after its end."""
    if row is None or end == len(row):
        return row
    row = row.copy()
    row[end:] = 0
    return row


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
            "float32, a string or None."
        )
    return None if _is_blank(row) else row


def _is_blank(row: np.ndarray) -> bool:
    """Checks whether a row is empty or all NaN."""
    return row.size == 0 or (row.dtype.kind == "f" and bool(np.isnan(row).all()))


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
    """Lists the present rows and their shapes; of an array one row stands for all."""
    if isinstance(column.rows, np.ndarray):
        return [(0, column.rows.shape[1:])]
    return [(int(row), column.rows[row].shape) for row in np.flatnonzero(column.present)]


def pad_rows(
    column: Column, spec: Modality, dtype: np.dtype
) -> tuple[np.ndarray, Int[np.ndarray, " n"]]:
    """Pads the rows with zeros to one array.

    Returns:
      The array [n, *shape], and the lengths of the rows before padding [n].
    """
    rows = column.rows
    if isinstance(rows, np.ndarray) and rows.shape[1:] == spec.shape:
        return rows.astype(dtype, copy=False), np.full(len(rows), spec.shape[0])
    present_rows = [row if p else None for row, p in zip(rows, column.present, strict=True)]
    lengths = np.array([0 if row is None else len(row) for row in present_rows])
    return pad_ragged(present_rows, spec.shape, dtype), lengths


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
