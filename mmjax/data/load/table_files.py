"""Reading of CSV and Parquet files into columns of cells, with the place of every row."""

import contextlib
import csv
import importlib
import lzma
import math
import os
import sys
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data.limits import (
    MAX_BYTES,
    MAX_CELL,
    LimitError,
    check_declared_size,
    check_file_size,
    format_size,
)

_PARQUET_BATCH_ROWS = 1024  # rows of a Parquet file in memory at once
_BYTES_PER_OBJECT = 32  # size of a number in a Python list


class Table(NamedTuple):
    """A table in memory.

    Attributes:
      path: the file.
      columns: {name: cells}; an empty cell is None.
      lines: the line of the file on which each row ends, from 1; None for Parquet.
      start: number of the first row in the file, if the table is a part of it.
    """

    path: Path
    columns: dict[str, list[Any]]
    lines: list[int] | None
    start: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def place(self, row: int) -> str:
        """Returns where a row is, for messages."""
        number = f"row {self.start + row}" if self.lines is None else f"line {self.lines[row]}"
        return f"{self.path}, {number}"


def read_table(
    path: str | os.PathLike[str],
    columns: Collection[str],
    *,
    max_bytes: int = MAX_BYTES,
    max_cell: int = MAX_CELL,
) -> Table:
    """Reads columns of a Parquet file, or of a CSV file in UTF-8 with a header.

    The first bytes tell which of them it is, whatever its name; a CSV file may be compressed by
    gzip, bzip2 or xz.

    Args:
      path: the file.
      columns: names of the columns.
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
    if not path.is_file():
        raise FileNotFoundError(f"There is no table {path}.")
    check_file_size(path, max_bytes, "max_bytes")
    read = _read_parquet if is_parquet(path) else _read_csv
    table = read(path, sorted(columns), max_bytes, max_cell)
    if not len(table):
        raise ValueError(f"{path} has no rows.")
    return table


def _read_csv(path: Path, columns: Sequence[str], max_bytes: int, max_cell: int) -> Table:
    with open_csv(path) as file, _field_size_limit(max_cell):
        lines = _iterate_decoded_lines(file, path, max_cell, max_bytes)
        reader = csv.reader(lines, strict=True)
        try:
            header = next(reader, [])
            _check_header(header, columns, path)
            rows, ends = _read_csv_rows(reader, len(header), path)
        except csv.Error as error:
            fix = " If that is intended, give a larger max_cell." if "limit" in str(error) else ""
            raise ValueError(f"{path}, line {reader.line_num}: {error}.{fix}") from None
    cells: dict[str, list[Any]] = {}
    for name in columns:
        i = header.index(name)
        cells[name] = [row[i] or None for row in rows]
    return Table(path, cells, ends)


@contextlib.contextmanager
def _field_size_limit(limit: int) -> Iterator[None]:
    """Sets the process-wide limit of the csv module, and restores it."""
    previous = csv.field_size_limit(limit)
    try:
        yield
    finally:
        csv.field_size_limit(previous)


def is_parquet(path: Path) -> bool:
    """Checks whether a file begins as Parquet files do, or has their ending."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1" or path.suffix in (".parquet", ".pq")


def open_csv(path: Path) -> Any:
    """Opens a file that may be compressed by gzip, bzip2 or xz, which its first bytes tell."""
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


def _iterate_lines(file: Any, path: Path, size: int) -> Iterator[bytes]:
    """Yields the lines of a file, or their first `size` bytes."""
    try:
        while line := file.readline(size):
            yield line
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path} is damaged: {str(error).rstrip('.')}.") from None


def _iterate_decoded_lines(
    file: Any, path: Path, max_cell: int, max_bytes: int = sys.maxsize
) -> Iterator[str]:
    """Yields the lines of a file, none of which may be longer than the limit of a cell."""
    total = 0
    for number, line in enumerate(_iterate_lines(file, path, max_cell + 1), start=1):
        total += len(line)
        if total > max_bytes:  # of a compressed file
            raise LimitError(
                f"{path}, line {number}: it unpacks to more than the limit of "
                f"{format_size(max_bytes)}; if that is intended, give a larger max_bytes."
            )
        if len(line) > max_cell:
            raise LimitError(
                f"{path}, line {number}: it is longer than the limit of {format_size(max_cell)}; "
                "if that is intended, give a larger max_cell."
            )
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: not UTF-8, byte {line[error.start]:#04x} at offset "
                f"{error.start} of the line."
            ) from None


def _check_header(header: Sequence[str], columns: Sequence[str], path: Path) -> None:
    for name in columns:
        if name not in header:
            raise ValueError(f"{path} has no column {name!r}; it has {', '.join(header)}.")
        if header.count(name) > 1:
            raise ValueError(f"{path} has several columns named {name!r}.")


def _read_csv_rows(reader: Any, width: int, path: Path) -> tuple[list[list[str]], list[int]]:
    rows, lines = [], []
    for row in reader:
        if not row:  # an empty line
            continue
        if len(row) != width:
            raise ValueError(
                f"{path}, line {reader.line_num}: {len(row)} cells; the header has {width}."
            )
        rows.append(row)
        lines.append(reader.line_num)
    return rows, lines


def _read_parquet(path: Path, columns: Sequence[str], max_bytes: int, max_cell: int) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install 'mmjax[table]'.") from error
    cells: dict[str, list[Any]] = {name: [] for name in columns}
    try:
        schema = parquet.read_schema(path)
        _check_header(schema.names, columns, path)
        strings = [name for name in columns if _is_string_type(schema.field(name).type)]
        # A dictionary is read as one, since a long string in it may stand in every row.
        with parquet.ParquetFile(path, read_dictionary=strings) as file:
            _check_parquet_size(file.metadata, path, columns, max_bytes)
            size = 0
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS, columns=list(columns)):
                for name in columns:
                    column = batch.column(name)
                    size += _check_cell_sizes(column, path, name, len(cells[name]), max_cell)
                    check_declared_size(path, size, max_bytes, "max_bytes")
                    cells[name] += _convert_to_python_cells(column, path, name, len(cells[name]))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not a whole Parquet file: {reason.rstrip('.')}.") from None
    return Table(path, cells, None)


def _is_string_type(kind: Any) -> bool:
    import pyarrow

    return kind in (pyarrow.string(), pyarrow.large_string())


def _check_parquet_size(metadata: Any, path: Path, columns: Sequence[str], max_bytes: int) -> None:
    """Refuses a file by what it declares of its columns, before any is read.

    Numbers count too: encoded runs of one value are small in the file but not in memory.
    """
    size = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema.partition(".")[0] in columns:
                size += max(chunk.total_uncompressed_size, _BYTES_PER_OBJECT * chunk.num_values)
    check_declared_size(path, size, max_bytes, "max_bytes")


def _check_cell_sizes(column: Any, path: Path, name: str, start: int, max_cell: int) -> int:
    """Returns the size of the cells of a batch, none of which may be larger than the limit."""
    import pyarrow
    from pyarrow import compute

    values = column.dictionary if isinstance(column, pyarrow.DictionaryArray) else column
    try:
        lengths = compute.binary_length(values)
    except pyarrow.ArrowNotImplementedError:  # not strings
        return 0
    if isinstance(column, pyarrow.DictionaryArray):
        lengths = lengths.take(column.indices)
    longest = compute.max(lengths).as_py() or 0
    if longest > max_cell:
        row = start + compute.index(lengths, longest).as_py()
        raise LimitError(
            f"{path}, row {row}, column {name!r}: the cell has {format_size(longest)}, more than "
            f"the limit of {format_size(max_cell)}; if that is intended, give max_cell={longest}."
        )
    return compute.sum(lengths).as_py() or 0


def _convert_to_python_cells(column: Any, path: Path, name: str, start: int) -> list[Any]:
    """Returns the cells of a batch as Python values; an empty one is None."""
    import pyarrow

    if isinstance(column, pyarrow.DictionaryArray):
        # As bytes, so that text is checked row by row.
        words = column.dictionary.cast(pyarrow.large_binary()).to_pylist()
        values = [None if i is None else words[i] for i in column.indices.to_pylist()]
    else:
        values = column.to_pylist()
    return [
        _decode_cell(_empty_to_none(value), path, name, start + i) for i, value in enumerate(values)
    ]


def _empty_to_none(value: Any) -> Any:
    """Converts an empty cell or NaN to None."""
    return None if value in ("", b"") or value != value else value  # NaN differs from itself


def _decode_cell(cell: Any, path: Path, column: str, row: int) -> Any:
    if not isinstance(cell, bytes):
        return cell
    try:
        return cell.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}, row {row}, column {column!r}: not UTF-8, byte {cell[error.start]:#04x} at "
            f"offset {error.start}."
        ) from None


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
        raise ValueError(
            f"{cell!r} is not a number; leave the cell empty if it is missing."
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
