"""A modality as a user has it, an array or a list of arrays, becomes one padded array."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Num

from mmjax.data.dataset import Modality
from mmjax.data.kinds.text import Text, tokenize
from mmjax.data.load.decode import BYTES, typed
from mmjax.data.load.labels import missing_rows


class Column(NamedTuple):
    """The rows of one split's modality.

    Attributes:
      rows: [n, ...], or one array a row, which may differ in shape; missing ones are anything.
      here: where it is not missing.
      kind: type of the numbers.
      text: whether the rows were strings, which are sequences whatever their lengths.
      lengths: of sequences that were padded already; 0 where one is missing.
    """

    rows: Num[np.ndarray, "n ..."] | list[np.ndarray]
    here: Bool[np.ndarray, " n"]
    kind: np.dtype
    text: bool = False
    lengths: Int[np.ndarray, " n"] | None = None


def as_column(
    split: str,
    name: str,
    raw: Any,
    present: Bool[np.ndarray, " n"] | None = None,
    lengths: tuple[str, Any] | None = None,
) -> Column:
    """Reads an array or a list, in which None, NaN all over, and masked rows are missing.

    What is not present, or lies behind the end of a sequence, may hold anything: it becomes 0.

    Args:
      split: the split, for messages.
      name: of the array.
      raw: the array or list.
      present: where it is present; None is everywhere.
      lengths: the name and the array of its lengths, if it is padded already.

    Raises:
      ValueError: naming the split, the array and the row: of objects that are no numbers, in part
        masked, beyond 32 bits, or of a length that it does not have.
    """
    present = np.ones(len(raw), bool) if present is None else present
    if isinstance(raw, np.ndarray) and raw.dtype.kind in "biuf":
        return _array_column(split, name, raw, present, lengths)
    rows = [
        _row(value, f"row {i} of {split!r}: {name!r}") if here else None
        for i, (value, here) in enumerate(zip(raw, present, strict=True))
    ]
    here = np.array([row is not None for row in rows], bool)
    ends = None
    if lengths is not None:
        ends = as_lengths(split, *lengths, here, [0 if r is None else len(r) for r in rows])
        known = zip(rows, ends.tolist(), strict=True)
        here = np.array([r is not None and not _is_blank(r[:end]) for r, end in known], bool)
        rows = [_without_padding(row, end) for row, end in zip(rows, ends.tolist(), strict=True)]
    ready = [
        np.zeros(0) if row is None else typed(row, f"row {i} of {split!r}: {name!r}")
        for i, row in enumerate(rows)
    ]
    kinds = [row.dtype for row, known in zip(ready, here, strict=True) if known]
    if np.uint8 in kinds and any(kind.kind == "f" for kind in kinds):
        raise ValueError(
            f"{name!r} of split {split!r} has rows of uint8 and rows of floating-point numbers; "
            "store all in one type and on one scale."
        )
    text = any(isinstance(value, str | bytes) for value in raw)
    return Column(ready, here, kind_of(kinds), text, ends)


def _array_column(
    split: str,
    name: str,
    raw: np.ndarray,
    present: Bool[np.ndarray, " n"],
    lengths: tuple[str, Any] | None,
) -> Column:
    array = raw[:, None] if raw.ndim == 1 else raw
    if 0 in array.shape[1:]:
        raise ValueError(
            f"{name!r} of split {split!r} has the shape {raw.shape}; an example needs at least one "
            "number."
        )
    here, ends = ~missing_rows(array) & present, None
    where = here
    if lengths is not None:
        ends = as_lengths(split, *lengths, here, np.full(len(array), array.shape[1]))
        where = np.arange(array.shape[1])[None] < ends[:, None]
        padding = np.broadcast_to(~_widened(where, array), array.shape)
        # What is behind the end must not decide whether the row is missing.
        here = here & ~missing_rows(np.ma.array(array, mask=padding))
        where = here[:, None] & where
    _check_mask(split, name, array, where)
    array = np.ma.getdata(array)
    if not where.all():
        array = np.where(_widened(where, array), array, 0)
        array = array.astype(raw.dtype, copy=False)
    array = typed(array, f"{name!r} of split {split!r}")
    return Column(array, here, array.dtype, lengths=ends)


def _widened(where: Bool[np.ndarray, "..."], array: np.ndarray) -> Bool[np.ndarray, "..."]:
    """Returns a mask of the first axes of an array that broadcasts over the others."""
    return where.reshape(*where.shape, *(1,) * (array.ndim - where.ndim))


def _without_padding(row: np.ndarray | None, end: int) -> np.ndarray | None:
    """Returns a sequence with zeros behind its end."""
    if row is None or end == len(row):
        return row
    row = row.copy()
    row[end:] = 0
    return row


def kind_of(kinds: Iterable[np.dtype]) -> np.dtype:
    """The type for numbers of several types: float32 if any are floating-point, else int32."""
    found = set(kinds)
    if len(found) == 1:
        return found.pop()
    floating = any(kind.kind == "f" for kind in found) or not found
    return np.dtype(np.float32 if floating else np.int32)


def _check_mask(split: str, name: str, array: np.ndarray, where: Bool[np.ndarray, "..."]) -> None:
    if not np.ma.is_masked(array):
        return
    partly = np.ma.getmaskarray(array).any(axis=tuple(range(where.ndim, array.ndim))) & where
    if partly.any():
        row = int(np.argwhere(partly)[0][0])
        raise ValueError(
            f"row {row} of {split!r}: {name!r} is masked in part; fill it, or mask it all."
        )


def _row(value: Any, what: str) -> np.ndarray | None:
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
            f"{what} has type {row.dtype}; it must be numbers of a type of NumPy's own, such as "
            "float32, a string or None."
        )
    return None if _is_blank(row) else row


def _is_blank(row: np.ndarray) -> bool:
    """Returns whether a row has no number, or NaN all over."""
    return row.size == 0 or (row.dtype.kind == "f" and bool(np.isnan(row).all()))


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


def as_lengths(
    split: str, name: str, raw: Any, here: Bool[np.ndarray, " n"], longest: Any
) -> Int[np.ndarray, " n"]:
    """Reads an array of lengths; those of missing sequences, which may be anything, become 0.

    Args:
      split: the split, for messages.
      name: of the array.
      raw: the lengths.
      here: where there is a sequence.
      longest: how many steps each sequence has with its padding.

    Raises:
      ValueError: if it is not one whole number per row, or one is not from 0 to `longest`.
    """
    lengths = _whole_array(raw, "iu", split, name, "one whole number a row")
    # Compared before they become 32 bits, which would make 2**32 + 1 a 1.
    bad = here & ((lengths < 0) | (lengths > np.asarray(longest)))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"row {row} of {split!r}: {name!r} is {lengths[row]}; it must be 0 to "
            f"{np.asarray(longest)[row]}."
        )
    return np.where(here, lengths, 0).astype(np.int32)


def as_mask(split: str, name: str, raw: Any) -> Bool[np.ndarray, " n"]:
    """Reads an array that says where something is.

    Raises:
      ValueError: if it is not one truth value per row.
    """
    return _whole_array(raw, "b", split, name, "one bool a row")


def _whole_array(raw: Any, kinds: str, split: str, name: str, wanted: str) -> np.ndarray:
    """Returns an array of one axis, of the given kinds of type, without gaps."""
    array = np.asarray(raw)
    if array.ndim != 1 or array.dtype.kind not in kinds or np.ma.is_masked(raw):
        gaps = " with masked rows" if np.ma.is_masked(raw) else ""
        raise ValueError(
            f"{name!r} of split {split!r} is {array.dtype}{list(array.shape)}{gaps}; it must be "
            f"{wanted}."
        )
    return array
