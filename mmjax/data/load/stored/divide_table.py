"""Divides a table, or one per split, into parts, and the rows of each part into splits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.load.split_rows import Split, assign_row_arrays
from mmjax.data.load.stored.parallel_jobs import Job, JobFolder
from mmjax.data.load.stored.survey import PartRows, make_part_key
from mmjax.data.load.stored.table_parts import CellFormat, FilePart, iterate_part, list_parts
from mmjax.data.load.tables.dialect_cells import blank_missing_cells, normalize_numbers

_READ_ROWS = 8192
_BYTES_PER_CELL = 32  # about, to decide how many processes read


def divide_table(
    table: Any,
    columns: Sequence[str],
    cells: CellFormat,
    split: Split | None,
    seed: int,
    folder: JobFolder,
) -> tuple[list[FilePart], list[PartRows]]:
    """Lists the parts of all files, and the rows of each split in each part.

    Args:
      table: the paths of one table, or {split: paths}.
      columns: the columns that are read.
      cells: how.
      split: how the rows of one table become splits; None if there is one table per split.
      seed: seed of the shares.
      folder: keeps what is found.

    Raises:
      ValueError: as `list_parts` and `assign_rows`.
    """
    if isinstance(table, Mapping):
        listed: list[FilePart] = []
        alone: list[PartRows] = []
        for name, paths in table.items():
            for part in list_parts(paths, columns, cells, folder):
                listed.append(part)
                alone.append({name: np.arange(part.rows)})
        return listed, alone
    split = split or Split()
    needed = sorted({*columns, *split.list_columns()})
    parts = list_parts(table, needed, cells, folder)
    ends = np.cumsum([part.rows for part in parts])
    named = _read_split_columns(parts, split, cells, folder)
    assigned = assign_row_arrays(split, named, int(ends[-1]), seed)
    rows: list[PartRows] = []
    for part, end in zip(parts, ends, strict=True):
        local = {}
        for name, numbers in assigned.items():
            first, last = np.searchsorted(numbers, (end - part.rows, end))
            local[name] = numbers[first:last] - (end - part.rows)
        rows.append(local)
    return parts, rows


def _read_split_columns(
    parts: Sequence[FilePart], split: Split, cells: CellFormat, folder: JobFolder
) -> dict[str, list[Any]]:
    """Reads the columns that decide which split a row belongs to; equal cells are one object."""
    names = split.list_columns()
    if not names:
        return {}
    jobs = []
    for part in parts:
        key = make_part_key(part.digest, part.start, part.keys, names, split.time, cells)
        size = part.rows * _BYTES_PER_CELL * len(names)
        jobs.append(Job(f"split-{key}", _read_part_columns, (part, names, split.time, cells), size))
    columns: dict[str, list[Any]] = {name: [] for name in names}
    known: dict[Any, Any] = {}
    for result in folder.run(jobs, "Reading the splits"):
        for name in names:
            columns[name] += [known.setdefault((type(c), c), c) for c in result[name]]
    return columns


def _read_part_columns(
    part: FilePart, names: Sequence[str], time: str | None, cells: CellFormat
) -> dict[str, list[Any]]:
    """Reads columns of a part, none of whose cells may be empty; dates become texts."""
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for _, table in iterate_part(part, names, cells, _READ_ROWS):
        blank_missing_cells(table, cells.dialect)
        if time is not None:
            normalize_numbers(table, [time], cells.dialect, strict=False)
        for name in names:
            for row, cell in enumerate(table.columns[name]):
                if cell is None:
                    raise ValueError(f"{table.place(row)}: column {name!r} names no split.")
                columns[name].append(cell.isoformat() if hasattr(cell, "isoformat") else cell)
    return columns
