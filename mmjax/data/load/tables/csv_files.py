"""Reads CSV files, which may be compressed, a block of rows at a time."""

import contextlib
import csv
import importlib
import io
import itertools
import lzma
import sys
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.limits import LimitError, format_size
from mmjax.data.load.tables.dialect import Dialect

_OTHER_SEPARATORS = (";", "\t", "|", ",")
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16


def iterate_csv(
    path: Path,
    columns: Collection[str] | None,
    rows: int,
    dialect: Dialect,
    *,
    max_cell: int,
    max_bytes: int = sys.maxsize,
) -> Iterator[tuple[dict[str, list[Any]], list[int]]]:
    """Yields the cells of a file and the line on which each row ends, `rows` rows at a time.

    Args:
      path: the file, with a header.
      columns: names of the columns; None: all.
      rows: number of rows per part.
      dialect: how the file is written.
      max_cell: the largest cell, and the longest line, in bytes.
      max_bytes: the largest size of the unpacked file.

    Raises:
      ValueError: naming the file and the line, if it is damaged, in another encoding, or has rows
        of another length than the header, no such column, or several of that name.
    """
    dialect.check()
    with open_csv(path) as file:
        lines = _iterate_decoded_lines(file, path, dialect.encoding, max_cell, max_bytes)
        reader = csv.reader(lines, delimiter=dialect.separator, strict=True)
        numbered_rows = ((row, reader.line_num) for row in reader if row)  # no empty lines
        header: list[str] | None = None
        while True:
            # The limit is that of the whole process, so it is set only while rows are read.
            with _field_size_limit(max_cell):
                try:
                    if header is None:
                        header = next(numbered_rows, ([], 0))[0]
                        columns = header if columns is None else columns
                        check_header(header, columns, path, dialect.separator)
                    part = list(itertools.islice(numbered_rows, rows))
                except csv.Error as error:
                    fix = " If that is intended, give a larger max_cell."
                    raise ValueError(
                        f"{path}, line {reader.line_num}: {error}."
                        f"{fix if 'limit' in str(error) else ''}"
                    ) from None
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


@contextlib.contextmanager
def _field_size_limit(limit: int) -> Iterator[None]:
    """Sets the process-wide limit of the csv module, and restores it."""
    previous = csv.field_size_limit(limit)
    try:
        yield
    finally:
        csv.field_size_limit(previous)


def open_csv(path: Path) -> Any:
    """Opens a file that may be compressed by gzip, bzip2 or xz, as its first bytes show."""
    with path.open("rb") as file:
        start = file.read(6)
    for magic, module in (
        (b"\x1f\x8b", "gzip"),
        (b"BZh", "bz2"),
        (b"\xfd7zXZ\x00", "lzma"),
    ):
        if start.startswith(magic):
            return importlib.import_module(module).open(path, "rb")
    return path.open("rb")


def _iterate_decoded_lines(
    file: Any, path: Path, encoding: str, max_cell: int, max_bytes: int
) -> Iterator[str]:
    """Yields the lines of a file, none of which may be longer than the limit of a cell."""
    is_utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")
    # UTF-8 is decoded line by line, so that an error can name its place in the line.
    source: Any = file if is_utf8 else io.TextIOWrapper(file, encoding, newline="")
    total, number = 0, 0
    try:
        with source:
            while line := source.readline(max_cell + 1):
                number += 1
                total += len(line)
                if total > max_bytes:  # of a compressed file
                    raise LimitError(
                        f"{path}, line {number}: it unpacks to more than the limit of "
                        f"{format_size(max_bytes)}; if that is intended, give a larger max_bytes."
                    )
                if len(line) > max_cell:
                    raise LimitError(
                        f"{path}, line {number}: it is longer than the limit of "
                        f"{format_size(max_cell)}; if that is intended, give a larger max_cell."
                    )
                yield _decode_utf8_line(line, number, path) if is_utf8 else line
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path} is damaged: {str(error).rstrip('.')}.") from None
    except UnicodeError as error:
        raise ValueError(
            f"{path}, after line {number}: not {encoding}, {str(error).rstrip('.')}; give the "
            "dialect its encoding."
        ) from None


def _decode_utf8_line(line: bytes, number: int, path: Path) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        other = "utf-16" if number == 1 and line.startswith(_BYTE_ORDER_MARKS) else "cp1252"
        raise ValueError(
            f"{path}, line {number}: not UTF-8, byte {line[error.start]:#04x} at offset "
            f"{error.start} of the line. If it is in another encoding, give "
            f"dialect=Dialect(encoding={other!r}), or the right one."
        ) from None
