"""The rows of CSV files, which may be compressed, each with the line on which it ends."""

import contextlib
import csv
import importlib
import io
import itertools
import lzma
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data.limits import LimitError, format_size
from mmjax.data.load.tables.dialect import Dialect

_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16


class CsvPosition(NamedTuple):
    """A place between two rows of a CSV file.

    Attributes:
      offset: number of bytes before it.
      line: number of lines before it.
    """

    offset: int
    line: int


class NumberedRows:
    """The rows of a file that are not empty, each with the line on which it ends."""

    def __init__(
        self, file: Any, path: Path, dialect: Dialect, limits: tuple[int, int], start: CsvPosition
    ):
        self._path, (self._max_cell, max_bytes) = path, limits
        lines = _iterate_decoded_lines(
            file, path, dialect.encoding, self._max_cell, max_bytes, start.line
        )
        self._reader = csv.reader(lines, delimiter=dialect.separator, strict=True)
        self._rows = ((row, start.line + self._reader.line_num) for row in self._reader if row)
        self._start = start

    def read(self, count: int) -> list[tuple[list[str], int]]:
        """Reads up to `count` rows."""
        # The limit is that of the whole process, so it is set only while rows are read.
        with _field_size_limit(self._max_cell):
            try:
                return list(itertools.islice(self._rows, count))
            except csv.Error as error:
                fix = " If that is intended, give a larger max_cell."
                raise ValueError(
                    f"{self._path}, line {self._start.line + self._reader.line_num}: {error}."
                    f"{fix if 'limit' in str(error) else ''}"
                ) from None


def locate_csv_rows(
    path: Path, rows: int, dialect: Dialect, *, max_cell: int
) -> Iterator[tuple[int, CsvPosition]]:
    """Yields the number of each `rows`-th row of a file and where it begins, then those of the end.

    Files that are compressed, or in another encoding than UTF-8, cannot be read from the middle: of
    these, only the first row and the end are located.

    Raises:
      ValueError: as `iterate_csv`.

    Example:
      >>> import os, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder, "pets.csv")
      ...     _ = path.write_text(os.linesep.join(["kind", "cat", "dog", "owl"]))
      ...     [n for n, _ in locate_csv_rows(path, 2, Dialect(), max_cell=100)]
      [0, 2, 3]
    """
    dialect.check()
    with open_csv(path) as file:
        is_divisible = isinstance(file, io.BufferedReader) and _is_utf8(dialect.encoding)
        counted = _CountedLines(file) if is_divisible else file
        numbered_rows = NumberedRows(
            counted, path, dialect, (max_cell, sys.maxsize), CsvPosition(0, 0)
        )
        line = next(iter(numbered_rows.read(1)), ([], 0))[1]
        number = 0
        while True:
            position = CsvPosition(getattr(counted, "offset", 0), line)
            part = numbered_rows.read(rows)
            if is_divisible or not number or not part:
                yield number, position
            if not part:
                return
            number, line = number + len(part), part[-1][1]


class _CountedLines:
    """A file that counts the bytes of the lines that were read."""

    def __init__(self, file: Any):
        self._file, self.offset = file, 0

    def readline(self, size: int) -> bytes:
        line: bytes = self._file.readline(size)
        self.offset += len(line)
        return line


@contextlib.contextmanager
def _field_size_limit(limit: int) -> Iterator[None]:
    """Sets the process-wide limit of the csv module, and restores it."""
    previous = csv.field_size_limit(limit)
    try:
        yield
    finally:
        csv.field_size_limit(previous)


def open_csv(path: Path) -> Any:
    """Opens a file that may be compressed by gzip, bzip2 or xz, as its first bytes show.

    Raises:
      ValueError: if it is a zip archive, as Excel files are.
    """
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"PK\x03\x04"):
        raise ValueError(
            f"{path} is a zip archive or an Excel file; unpack it, or give the DataFrame of "
            "pandas.read_excel."
        )
    for magic, module in (
        (b"\x1f\x8b", "gzip"),
        (b"BZh", "bz2"),
        (b"\xfd7zXZ\x00", "lzma"),
    ):
        if start.startswith(magic):
            return importlib.import_module(module).open(path, "rb")
    return path.open("rb")


def _iterate_decoded_lines(
    file: Any, path: Path, encoding: str, max_cell: int, max_bytes: int, number: int
) -> Iterator[str]:
    """Yields the lines of a file, none of which may be longer than the limit of a cell."""
    is_utf8 = _is_utf8(encoding)
    # UTF-8 is decoded line by line, so that an error can name its place in the line.
    source: Any = file if is_utf8 else io.TextIOWrapper(file, encoding, newline="")
    total = 0
    try:
        with contextlib.nullcontext() if source is file else source:
            while line := source.readline(max_cell + 1):
                number += 1
                total += len(line)
                if total > max_bytes:  # of a compressed file
                    raise LimitError(
                        f"{path}, line {number}: it unpacks to more than the limit of "
                        f"{format_size(max_bytes)}; if that is intended, give stream=Streaming(), "
                        "or a larger max_bytes."
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


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")


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
