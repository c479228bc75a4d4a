"""New rows as the inputs of a trained model: prepared as the training split was."""

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from mmjax.data.checks.array_checks import InvalidDataError
from mmjax.data.checks.validate_inputs import check_input
from mmjax.data.dataset import Modality, Preparation
from mmjax.data.kinds import get_columns
from mmjax.data.load.arrays.columns import read_column
from mmjax.data.load.tables.blank_rows import keeps_blank_rows
from mmjax.data.load.tables.rows import Reader
from mmjax.data.load.tables.table_files import Table
from mmjax.data.normalize import standardize_batch
from mmjax.data.spec import Spec
from mmjax.masks import pad_ragged
from mmjax.types import Batch

Sources = Mapping[str, tuple[str, ...] | None]


def choose_columns(spec: Spec, names: Collection[str]) -> dict[str, tuple[str, ...] | None]:
    """Chooses the columns that each modality is read from; None if it is absent in all rows.

    A modality is read from the columns that it was trained on or, if there are none of these, from
    an array of its own name. A warning names every modality that is absent.

    Raises:
      ValueError: no modality is there, or only some of the columns of one.

    Example:
      >>> spec = Spec("pets", {"body": Modality((2,))}, {}, {"body": Preparation()}, {})
      >>> choose_columns(spec, ["id", "body"])
      {'body': ('body',)}
    """
    chosen: dict[str, tuple[str, ...] | None] = {}
    for m in spec.modalities:
        columns = _list_training_columns(m, spec.preparations[m])
        missing = [name for name in columns if name not in names]
        if not missing:
            chosen[m] = columns
        elif m in names:
            chosen[m] = (m,)
        elif len(missing) < len(columns):
            raise ValueError(
                f"column {missing[0]!r} of modality {m!r} is missing; the model was trained on "
                f"{', '.join(columns)}."
            )
        else:
            chosen[m] = None
    absent = [m for m, columns in chosen.items() if columns is None]
    if len(absent) == len(chosen):
        wanted = ", ".join(
            name for m, p in spec.preparations.items() for name in _list_training_columns(m, p)
        )
        raise ValueError(
            f"the examples have no column of any modality: the model reads {wanted}; their columns "
            f"are {', '.join(sorted(names))}."
        )
    for m in absent:
        wanted = ", ".join(_list_training_columns(m, spec.preparations[m]))
        warnings.warn(
            f"column {wanted} is missing, so the model predicts without modality {m!r}.",
            stacklevel=2,
        )
    return chosen


def _list_training_columns(modality: str, preparation: Preparation) -> tuple[str, ...]:
    return (modality,) if preparation.kind is None else get_columns(preparation.kind)


def prepare_rows(spec: Spec, rows: Table, chosen: Sources) -> Batch:
    """Makes the batch of some rows, without targets.

    Sequences longer than the model's are cut off. What is missing and padding is 0.

    Args:
      spec: what the data set learned.
      rows: the rows; paths in their cells are relative to the folder of the table's path.
      chosen: as `choose_columns` returns it.

    Raises:
      ValueError: naming the row and the modality, if a value cannot be read, or is of another
        shape or type than in training.
    """
    batch = Batch({}, {}, {}, {}, {})
    for m, columns in chosen.items():
        modality, preparation = spec.modalities[m], spec.preparations[m]
        if columns is None:
            values: list[np.ndarray | None] = [None] * len(rows)
        elif preparation.kind is None or preparation.lengths:
            values = _read_arrays(m, rows, preparation.lengths)
        else:
            values = _read_cells(m, rows, columns, preparation)
        _add_values(batch, m, modality, preparation, values, rows.place)
    scales = {m: p.scale for m, p in spec.preparations.items() if p.scale is not None}
    batch = standardize_batch(batch, spec.modalities, scales)
    for m, modality in spec.modalities.items():
        batch.inputs[m] = batch.inputs[m].astype(spec.preparations[m].dtype, copy=False)
        try:
            check_input(batch, m, modality)
        except InvalidDataError as error:
            raise ValueError(f"the examples from {rows.place(0)} on: {error}") from None
    return batch


def _read_cells(
    modality: str, rows: Table, columns: tuple[str, ...], preparation: Preparation
) -> list[np.ndarray | None]:
    """Reads cells by the kind of column that read the training split."""
    cells = {name: [_get_cell(value) for value in rows.columns[name]] for name in columns}
    table = Table(rows.path, cells, rows.lines, rows.start)
    read = Reader(preparation.kind, preparation.learned)
    # An array of the modality's own name stands for all of its columns.
    direct = columns != get_columns(preparation.kind)
    values: list[np.ndarray | None] = []
    for row in range(len(rows)):
        row_cells = [cells[name][row] for name in columns]
        try:
            is_blank = all(cell is None for cell in row_cells)
            if is_blank and not keeps_blank_rows(preparation.learned):
                values.append(None)
            elif not is_blank and (
                direct or any(isinstance(cell, np.ndarray) for cell in row_cells)
            ):
                values.append(preparation.kind.read_feature(row_cells, preparation.learned))
            else:
                values.append(read(table, row))
        except ValueError as error:
            raise ValueError(f"{rows.place(row)}, {modality!r}: {error}") from None
    return values


def _get_cell(value: Any) -> Any:
    """Returns a Python value, or an array; None if it is an empty text or NaN."""
    if isinstance(value, np.generic):
        value = value.item()
    is_empty = isinstance(value, str | bytes | float) and (value in ("", b"") or value != value)
    return None if is_empty else value


def _read_arrays(modality: str, rows: Table, lengths: str | None) -> list[np.ndarray | None]:
    """Reads arrays, lists of arrays or texts as `from_arrays` does."""
    ends = None
    if lengths is not None and lengths in rows.columns:
        ends = (lengths, rows.columns[lengths])
    where = f"the examples from {rows.place(0)} on"
    column = read_column(where, modality, rows.columns[modality], lengths=ends)
    values: list[np.ndarray | None] = []
    for row, is_present in enumerate(column.present):
        value = column.rows[row] if is_present else None
        if value is not None and column.lengths is not None:
            value = value[: column.lengths[row]]
        values.append(value)
    return values


def _add_values(
    batch: Batch,
    name: str,
    modality: Modality,
    preparation: Preparation,
    values: list[np.ndarray | None],
    place: Callable[[int], str],
) -> None:
    """Adds a modality to a batch, before its standardization."""
    longest = modality.shape[0] if modality.sequence else None
    for row, value in enumerate(values):
        if value is None:
            continue
        start = 1 if modality.sequence else 0
        if value.shape[start:] != modality.shape[start:] or value.ndim != len(modality.shape):
            raise ValueError(
                f"{place(row)}: modality {name!r} has shape {value.shape}, but the model was "
                f"trained on {modality.describe()}."
            )
        if preparation.scale is None:
            _check_dtype(name, value, np.dtype(preparation.dtype), place(row))
        if longest is not None and len(value) > longest:
            warnings.warn(
                f"sequences of modality {name!r} are cut off after {longest} steps, the longest in "
                "the training data.",
                stacklevel=2,
            )
        values[row] = value[:longest]
    # Values are standardized before they are rounded to the type of the inputs.
    dtype = np.dtype(np.float64 if preparation.scale is not None else preparation.dtype)
    batch.inputs[name] = pad_ragged(values, modality.shape, dtype)
    batch.present[name] = np.array([value is not None for value in values], bool)
    if modality.sequence:
        lengths = [0 if value is None else len(value) for value in values]
        batch.lengths[name] = np.array(lengths, np.int32)


def _check_dtype(name: str, value: np.ndarray, dtype: np.dtype, place: str) -> None:
    """Refuses numbers that the type of the training split cannot hold."""
    if dtype.kind == "f" or value.dtype == dtype:
        return
    limits = np.iinfo(dtype)
    fits = value.dtype.kind in "biu" and (
        not value.size or (value.min() >= limits.min and value.max() <= limits.max)
    )
    if not fits:
        raise ValueError(
            f"{place}: modality {name!r} is {value.dtype} from {value.min()} to {value.max()}, but "
            f"{dtype} in training; give it in that type and on that scale."
        )
