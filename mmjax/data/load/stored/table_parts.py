"""Divides the files of a table into parts, which are ranges of rows that can be read alone."""

import hashlib
import itertools
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax import files
from mmjax.data.load.stored.parallel_jobs import Job, JobFolder
from mmjax.data.load.tables.csv_files import iterate_csv
from mmjax.data.load.tables.csv_rows import CsvPosition, locate_csv_rows
from mmjax.data.load.tables.dialect import Dialect
from mmjax.data.load.tables.parquet_files import is_parquet, iterate_parquet, list_row_groups
from mmjax.data.load.tables.sources import list_table_files, parse_partition_keys
from mmjax.data.load.tables.table_files import Table

_PART_ROWS = 1 << 16  # a part has at least as many rows, unless its file ends before
_TABLE_BYTES = 1 << 22  # of the cells that are read at once, about
_UNTYPED = "gaps"  # the type of a Parquet column without any value


class CellFormat(NamedTuple):
    """How the cells of files are read.

    Attributes:
      dialect: how CSV files are written.
      max_cell: the largest cell, in bytes.
    """

    dialect: Dialect
    max_cell: int


class FilePart(NamedTuple):
    """A range of rows of a file.

    Attributes:
      path: the file.
      folder: that of the paths in its cells.
      digest: SHA-256 of the whole file.
      start: number of the first row in the file.
      rows: number of rows.
      row_bytes: size of a row, on average over the file.
      position: where the first row of a CSV file begins; None: after the header.
      groups: the row groups of a Parquet file; None for a CSV file.
      keys: {column: its cell} of the folders, such as "year=2024".
    """

    path: Path
    folder: Path
    digest: str
    start: int
    rows: int
    row_bytes: int
    position: CsvPosition | None
    groups: tuple[int, ...] | None
    keys: Mapping[str, str | None]


def list_parts(
    table: Any, columns: Collection[str], cells: CellFormat, folder: JobFolder
) -> list[FilePart]:
    """Lists the parts of all files of a table, in the order of the files.

    Args:
      table: a path, which may be a folder or a pattern, or a list of them.
      columns: the columns that will be read.
      cells: how the files are read.
      folder: keeps what is found, for files whose size and time do not change.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: naming a file that is damaged, empty, or of another format or type than the first.
    """
    paths = list(table) if isinstance(table, list | tuple) else [table]
    found = [pair for path in paths for pair in list_table_files(Path(path).expanduser())]
    jobs = []
    for _, path in found:
        if not path.is_file():
            raise FileNotFoundError(f"Table {path} does not exist.")
        status = os.stat(path)
        # A file that keeps its size and its time is not hashed again.
        state = repr((str(path.resolve()), status.st_size, status.st_mtime_ns, cells, _PART_ROWS))
        name = f"file-{hashlib.sha256(state.encode()).hexdigest()[:32]}"
        jobs.append(Job(name, _describe_file, (path, cells), status.st_size))
    parts: list[FilePart] = []
    folder_of_paths = found[0][1].parent
    described = list(folder.run(jobs, "Looking at the files"))
    for (root, path), facts in zip(found, described, strict=True):
        _check_same_types(found[0][1], described[0], path, facts, columns)
        keys = parse_partition_keys(root, path, columns)
        for start, rows, position, groups in facts["parts"]:
            place = None if position is None else CsvPosition(*position)
            chosen = None if groups is None else tuple(groups)
            where = (path, folder_of_paths, facts["digest"], start, rows, facts["row_bytes"])
            parts.append(FilePart(*where, place, chosen, keys))
    return parts


def _check_same_types(
    first: Path, first_facts: Mapping[str, Any], path: Path, facts: Mapping[str, Any], columns: Any
) -> None:
    """Refuses CSV beside Parquet, and Parquet files of other types than the first."""
    if (facts["types"] is None) != (first_facts["types"] is None):
        raise ValueError(f"{first} and {path} must both be CSV, or both Parquet.")
    for column in columns if facts["types"] is not None else ():
        kinds = [f["types"].get(column, _UNTYPED) for f in (first_facts, facts)]
        if kinds[0] != kinds[1] and _UNTYPED not in kinds:
            raise ValueError(
                f"column {column!r} has {kinds[0]} in {first}, but {kinds[1]} in {path}; convert "
                "one of the files."
            )


def _describe_file(path: Path, cells: CellFormat) -> dict[str, Any]:
    """Hashes a file and divides it; "types" is None for a CSV file."""
    parts: list[tuple[int, int, CsvPosition | None, list[int] | None]] = []
    types, size = None, path.stat().st_size
    if is_parquet(path):
        sizes, size, types = list_row_groups(path)
        groups: list[int] = []
        for group in range(len(sizes)):
            groups.append(group)
            rows = sum(sizes[g] for g in groups)
            if rows >= _PART_ROWS or group == len(sizes) - 1:
                parts += [(sum(sizes[: groups[0]]), rows, None, groups)] if rows else []
                groups = []
    else:
        located = locate_csv_rows(path, _PART_ROWS, cells.dialect, max_cell=cells.max_cell)
        for (start, position), (stop, _) in itertools.pairwise(located):
            parts.append((start, stop - start, position if start else None, None))
    if not parts or not parts[0][1]:
        raise ValueError(f"{path} has no rows.")
    row_bytes = size // sum(part[1] for part in parts)
    digest = files.compute_sha256(path)
    return {"digest": digest, "types": types, "row_bytes": row_bytes, "parts": parts}


def iterate_part(
    part: FilePart, columns: Sequence[str], cells: CellFormat, rows: int
) -> Iterator[tuple[int, Table]]:
    """Yields the cells of a part as tables of `rows` rows, each with the number of its first row.

    Raises:
      ValueError: as `iterate_table`, or if the file has changed meanwhile.
    """
    named = sorted(set(columns) - set(part.keys))
    count = 0
    # Few rows at once if they are long.
    rows = max(1, min(rows, _TABLE_BYTES // max(1, part.row_bytes)))
    for read, lines in _iterate_cells(part, named, cells, rows):
        size = min(len(next(iter(read.values()))), part.rows - count)
        kept = {name: values[:size] for name, values in read.items()}
        kept |= {name: [cell] * size for name, cell in part.keys.items() if name in columns}
        # Paths in cells are relative to the folder of the first file, places name the row's own.
        path, start = part.folder / part.path.name, part.start + count
        yield count, Table(path, kept, lines and lines[:size], start, ((-start, part.path),))
        count += size
        if count == part.rows:
            return
    raise ValueError(f"{part.path} has changed while it was read; start again.")


def _iterate_cells(
    part: FilePart, columns: Sequence[str], cells: CellFormat, rows: int
) -> Iterator[tuple[dict[str, list[Any]], list[int] | None]]:
    if part.groups is None:
        options: Any = {"max_cell": cells.max_cell, "start": part.position}
        yield from iterate_csv(part.path, columns, rows, cells.dialect, **options)
        return
    options = {"max_cell": cells.max_cell, "groups": part.groups}
    for read in iterate_parquet(part.path, columns, rows, **options):
        yield read, None
