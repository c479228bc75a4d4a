"""Tables: columns of cells read from CSV and Parquet files, with the place of every row."""

import bisect
import math
import os
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data.limits import MAX_BYTES, MAX_CELL, TABLE_SIZE_OPTION, check_file_size
from mmjax.data.load.tables.csv_files import iterate_csv
from mmjax.data.load.tables.dialect import DEFAULT_DIALECT, Dialect
from mmjax.data.load.tables.parquet_files import is_parquet, iterate_parquet

_READ_ROWS = 1024  # rows that are converted at once


class Table(NamedTuple):
    """A table in memory.

    Attributes:
      path: the file, or the first of several; of a DataFrame, the name of its type.
      columns: {name: cells}; an empty cell is None.
      lines: the line of the file on which each row ends, from 1; None if it has no lines, as
        Parquet has none.
      start: number of the first row in the file; 0 unless the table holds only a part of it.
      parts: (number of its first row, path) of each file, if there are several.
    """

    path: Path
    columns: dict[str, list[Any]]
    lines: list[int] | None
    start: int = 0
    parts: tuple[tuple[int, Path], ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def place(self, row: int) -> str:
        """Returns where a row is, for messages."""
        first, path = -self.start, self.path
        if self.parts:
            starts = [start for start, _ in self.parts]
            first, path = self.parts[bisect.bisect_right(starts, row) - 1]
        number = f"row {row - first}" if self.lines is None else f"line {self.lines[row]}"
        return f"{path}, {number}"


def read_table(
    path: str | os.PathLike[str],
    columns: Collection[str],
    *,
    dialect: Dialect = DEFAULT_DIALECT,
    max_bytes: int = MAX_BYTES,
    max_cell: int = MAX_CELL,
) -> Table:
    """Reads columns of a Parquet file, or of a CSV file with a header.

    The first bytes tell which of them it is, whatever its name; a CSV file may be compressed by
    gzip, bzip2 or xz.

    Args:
      path: the file.
      columns: names of the columns.
      dialect: how a CSV file is written.
      max_bytes: the largest size of the file, and of its cells after unpacking.
      max_cell: the largest cell, in bytes.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: if a Parquet file needs a package that is not installed.
      ValueError: naming the file and the line, if it is not UTF-8 (with the offset in the line),
        has rows of another length than the header, several columns of one name or no rows, or is
        damaged.
    """
    path = Path(path).expanduser()
    if path.is_file():
        check_file_size(path, max_bytes, TABLE_SIZE_OPTION)
    whole: Table | None = None
    for part in iterate_table(
        path,
        _READ_ROWS,
        columns=sorted(columns),
        dialect=dialect,
        max_bytes=max_bytes,
        max_cell=max_cell,
    ):
        if whole is None:
            whole = part
            continue
        for name, cells in part.columns.items():
            whole.columns[name].extend(cells)
        if whole.lines is not None:
            whole.lines.extend(part.lines or ())
    assert whole is not None
    return whole


def iterate_table(
    path: str | os.PathLike[str],
    rows: int,
    *,
    columns: Collection[str] | None = None,
    dialect: Dialect = DEFAULT_DIALECT,
    max_bytes: int = sys.maxsize,
    max_cell: int = MAX_CELL,
) -> Iterator[Table]:
    """Yields a CSV or Parquet file as tables of `rows` rows each, which need not fit into memory.

    The cells are those that `read_table` reads. Rows of a Parquet file are numbered from the
    start of the file.

    Args:
      path: the file.
      rows: number of rows per table.
      columns: names of the columns; None: all.
      dialect: how a CSV file is written.
      max_bytes: the largest size of the cells after unpacking.
      max_cell: the largest cell, in bytes.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: a Parquet file needs a package that is not installed.
      ValueError: naming the file and the line of the problem; also if the file has no rows.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder, "pets.csv")
      ...     _ = path.write_text("kind,weight" + os.linesep + os.linesep.join(["cat,3"] * 5))
      ...     [len(table) for table in iterate_table(path, 2)]
      [2, 2, 1]
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"Table {path} does not exist.")
    start = 0
    parts: Iterator[tuple[dict[str, list[Any]], list[int] | None]]
    if is_parquet(path):
        read = iterate_parquet(path, columns, rows, max_cell=max_cell, max_bytes=max_bytes)
        parts = ((cells, None) for cells in read)
    else:
        parts = iterate_csv(path, columns, rows, dialect, max_cell=max_cell, max_bytes=max_bytes)
    for cells, lines in parts:
        table = Table(path, cells, lines, start)
        yield table
        start += len(table)
    if not start:
        raise ValueError(f"{path} has no rows.")


def parse_number(cell: Any) -> float:
    """Converts a cell to a number.

    Raises:
      ValueError: if it is not a number, or not finite.

    Example:
      >>> parse_number("1e3")
      1000.0
    """
    try:
        if isinstance(cell, str) and "_" in cell:  # which `float` takes
            raise ValueError
        value = float(cell)
    except (TypeError, ValueError):
        hint = ""
        if isinstance(cell, str) and re.fullmatch(r"\s*[+-]?[0-9.,\s]*[0-9]\s*", cell):
            hint = " A dialect=Dialect(decimal=..., thousands=...) says what other signs mean."
        raise ValueError(
            f"{cell!r} is not a number; leave the cell empty if it is missing.{hint}"
        ) from None
    if not math.isfinite(value):
        raise ValueError(f"{cell!r} is not a finite number; leave the cell empty if it is missing.")
    return value


def is_number(cell: Any) -> bool:
    """Checks whether `parse_number` takes the cell."""
    try:
        parse_number(cell)
    except ValueError:
        return False
    return True
