"""Reads CSV files, which may be compressed, a block of rows at a time."""

import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.load.tables.csv_rows import CsvPosition, NumberedRows, open_csv
from mmjax.data.load.tables.dialect import Dialect

_OTHER_SEPARATORS = (";", "\t", "|", ",")


def iterate_csv(
    path: Path,
    columns: Collection[str] | None,
    rows: int,
    dialect: Dialect,
    *,
    max_cell: int,
    max_bytes: int = sys.maxsize,
    start: CsvPosition | None = None,
) -> Iterator[tuple[dict[str, list[Any]], list[int]]]:
    """Yields the cells of a file and the line on which each row ends, `rows` rows at a time.

    Args:
      path: the file, with a header.
      columns: names of the columns; None: all.
      rows: number of rows per part.
      dialect: how the file is written.
      max_cell: the largest cell, and the longest line, in bytes.
      max_bytes: the largest size of the unpacked file.
      start: where to begin, as `locate_csv_rows` found it; None: after the header.

    Raises:
      ValueError: naming the file and the line, if it is damaged, in another encoding, or has rows
        of another length than the header, no such column, or several of that name.
    """
    dialect.check()
    with open_csv(path) as file:
        limits = (max_cell, max_bytes)
        numbered_rows = NumberedRows(file, path, dialect, limits, CsvPosition(0, 0))
        header = next(iter(numbered_rows.read(1)), ([], 0))[0]
        columns = header if columns is None else columns
        check_header(header, columns, path, dialect.separator)
        if start is not None:
            file.seek(start.offset)
            numbered_rows = NumberedRows(file, path, dialect, limits, start)
        while True:
            part = numbered_rows.read(rows)
            if not part:
                return
            _check_row_lengths(part, len(header), path, dialect.separator)
            cells: dict[str, list[Any]] = {}
            for name in columns or ():
                i = header.index(name)
                cells[name] = [row[i] or None for row, _ in part]
            yield cells, [line for _, line in part]


def check_header(
    header: Sequence[str], columns: Collection[str], path: Path, separator: str = ""
) -> None:
    """Refuses a file without some of the columns, or with several of one name.

    Args:
      header: the names in the file.
      columns: the names that are needed.
      path: the file, for messages.
      separator: what the cells were separated by; "" if they need none.

    Raises:
      ValueError: naming the file and the column.
    """
    for name in columns:
        if header.count(name) == 1:
            continue
        if header.count(name) > 1:
            raise ValueError(f"{path} has several columns named {name!r}.")
        hint = ""
        if len(header) == 1 and separator:
            other = next((s for s in _OTHER_SEPARATORS if s != separator and s in header[0]), None)
            if other is not None:
                hint = (
                    f" It is one column as it was separated by {separator!r}; give "
                    f"dialect=Dialect(separator={other!r})."
                )
        if header and header[0].lstrip()[:1] in ("[", "{"):
            hint = " It looks like JSON; give the DataFrame of pandas.read_json."
        raise ValueError(f"{path} has no column {name!r}; it has {', '.join(header)}.{hint}")


def _check_row_lengths(
    rows: Sequence[tuple[list[str], int]], length: int, path: Path, separator: str
) -> None:
    """Raises ValueError, naming the line, if a row has more or fewer cells than the header."""
    for row, line in rows:
        if len(row) != length:
            raise ValueError(
                f"{path}, line {line}: {len(row)} cells; the header has {length}. "
                f"Quote cells that contain the separator {separator!r}."
            )
