"""The sources of a table: a file, several files, a DataFrame, or a dictionary of columns."""

import datetime
import glob
import os
import urllib.parse
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.load.arrays.foreign_types import convert_to_numpy, is_frame, list_frame_columns
from mmjax.data.load.arrays.pandas_indexes import check_same_index
from mmjax.data.load.tables.table_files import Table
from mmjax.data.load.targets.labels import convert_to_python

_TABLE_ENDINGS = (".csv", ".csv.gz", ".csv.bz2", ".csv.xz", ".tsv", ".parquet", ".pq")
_EMPTY_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_CELL_TYPES = (
    *(str, bool, int, float, list, set, frozenset, Decimal),
    datetime.date,  # a datetime is one, too
)
_ReadFile = Callable[[Path, Collection[str]], Table]


def read_sources(table: Any, columns: Collection[str], read: _ReadFile) -> Table | dict[str, Table]:
    """Reads a table, or one per split.

    Args:
      table: a path, a list of paths, a DataFrame of pandas, polars or PyArrow, {column: cells}, or
        {split: any of these}. A path may be a folder, or have "*" in it.
      columns: names of the columns.
      read: reads columns of one file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: naming what was given and what is needed.

    Example:
      >>> from mmjax.data.load.tables.table_files import read_table
      >>> read_sources({"age": [3, None], "pet": ["cat", "dog"]}, ["pet"], read_table).columns
      {'pet': ['cat', 'dog']}
    """
    # A dictionary that has all columns is {column: cells}; any other must be {split: table}.
    if not isinstance(table, Mapping) or set(columns) <= set(table):
        return _read_source(table, columns, read, "")
    if not all(map(_is_source, table.values())):
        missing = sorted(set(columns) - set(table))
        raise ValueError(
            f"the table is a dictionary of {', '.join(map(repr, table))}; it must be {{column: "
            f"cells}}, but has no column {missing[0]!r}, or {{split: table}}, such as {{'train': "
            "a, 'test': b}."
        )
    return {split: _read_source(part, columns, read, split) for split, part in table.items()}


def _is_source(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(isinstance(path, str | os.PathLike) for path in value)
    return isinstance(value, str | os.PathLike | Mapping) or is_frame(value)


def _read_source(table: Any, columns: Collection[str], read: _ReadFile, split: str) -> Table:
    if is_frame(table) or isinstance(table, Mapping):
        name = "dictionary" if isinstance(table, Mapping) else type(table).__name__
        cells = list_frame_columns(table) if is_frame(table) else table
        index = list(getattr(getattr(table, "index", None), "names", ()))  # of pandas
        return _convert_columns(f"{name} {split}".strip(), cells, columns, index)
    if not _is_source(table):
        raise ValueError(
            f"the table is a {type(table).__name__}; give a path, a list of paths, a DataFrame, "
            "{column: cells}, or {split: any of these}."
        )
    paths = list(table) if isinstance(table, list | tuple) else [table]
    files = [file for path in paths for file in list_table_files(Path(path).expanduser())]
    tables = [_read_partition(root, path, columns, read) for root, path in files]
    return tables[0] if len(tables) == 1 else _concatenate(tables)


def list_table_files(path: Path) -> list[tuple[Path, Path]]:
    """Lists the files of a path, a folder or a pattern, each with the folder that was searched."""
    if path.is_dir():
        tables = []
        for file in sorted(path.rglob("*")):
            # Hidden files, and those that Hive and Spark add, such as _SUCCESS, are not data.
            is_hidden = any(p.startswith((".", "_")) for p in file.relative_to(path).parts)
            if file.name.lower().endswith(_TABLE_ENDINGS) and not is_hidden:
                tables.append(file)
        if not tables:
            raise FileNotFoundError(
                f"The folder {path} has no table; its name must end in {', '.join(_TABLE_ENDINGS)}."
            )
        return [(path, file) for file in tables]
    # A file whose own name contains a wildcard is read as that file.
    if path.exists() or not glob.has_magic(str(path)):
        return [(path.parent, path)]
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
    if not matches:
        raise FileNotFoundError(f"Table {path} does not exist.")
    return [(path.parent, match) for match in matches if match.is_file()]


def _read_partition(root: Path, path: Path, columns: Collection[str], read: _ReadFile) -> Table:
    """Reads a file; folders such as "year=2024" below the root are columns, as Hive writes them."""
    keys = parse_partition_keys(root, path, columns)
    # Partitioned files do not repeat the columns that their folders name.
    rest = set(columns) - set(keys)
    if not rest:
        raise ValueError(f"{path} has none of the columns; all are names of its folders.")
    table = read(path, rest)
    for name, text in keys.items():
        table.columns[name] = [text] * len(table)
    return table


def parse_partition_keys(root: Path, path: Path, columns: Collection[str]) -> dict[str, str | None]:
    """Returns {column: its cell} of the folders below the root, such as "year=2024".

    Example:
      >>> parse_partition_keys(Path("data"), Path("data/year=2024/a.parquet"), ["year", "x"])
      {'year': '2024'}
    """
    keys: dict[str, str | None] = {}
    for folder in path.relative_to(root).parts[:-1] if path.is_relative_to(root) else ():
        key, equals, value = folder.partition("=")
        if equals:
            keys[key] = None if value == _EMPTY_PARTITION else urllib.parse.unquote(value)
    return {key: value for key, value in keys.items() if key in columns}


def _concatenate(tables: Sequence[Table]) -> Table:
    """Concatenates the tables of several files; each row keeps its file and line for messages."""
    first = tables[0]
    columns: dict[str, list[Any]] = {name: [] for name in first.columns}
    lines: list[int] | None = None if first.lines is None else []
    starts: list[tuple[int, Path]] = []
    for table in tables:
        if (table.lines is None) != (first.lines is None):
            raise ValueError(f"{first.path} and {table.path} must both be CSV, or both Parquet.")
        # Number of rows before this file, which maps a row back to its file.
        starts.append((sum(map(len, tables[: len(starts)])), table.path))
        for name, cells in table.columns.items():
            columns[name].extend(cells)
        if lines is not None:
            lines.extend(table.lines or ())
    return Table(first.path, columns, lines, parts=tuple(starts))


def _convert_columns(
    name: str, given: Mapping[str, Any], columns: Collection[str], index: Collection[Any]
) -> Table:
    """Makes a table of the columns of a DataFrame or a dictionary."""
    cells: dict[str, list[Any]] = {}
    for column in sorted(columns):
        if column not in given:
            fix = " It is in the index; call reset_index()." if column in index else ""
            raise ValueError(
                f"the {name} has no column {column!r}; it has {', '.join(map(str, given))}.{fix}"
            )
        cells[column] = _convert_cells(given[column], f"{name}, column {column!r}")
    sizes = {column: len(values) for column, values in cells.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"the columns of the {name} have several lengths: {sizes}.")
    if not next(iter(sizes.values())):
        raise ValueError(f"the {name} has no rows.")
    check_same_index(f"the {name}", {column: given[column] for column in sorted(columns)})
    return Table(Path(name), cells, None)


def _convert_cells(values: Any, what: str) -> list[Any]:
    """Converts a column to Python values; missing values and empty texts become None."""
    if (
        hasattr(values, "dtype")
        and str(values.dtype).startswith("datetime64")
        and hasattr(values, "dt")
    ):  # of pandas, whose time zone must stay
        return [None if t != t else t.to_pydatetime(warn=False) for t in values]
    converted = convert_to_numpy(values, what)
    if isinstance(converted, np.ndarray) and converted.ndim in (1, 2):
        # NumPy converts nanoseconds to integers, but microseconds to `datetime` objects.
        if converted.dtype.kind == "M":
            converted = converted.astype("datetime64[us]")
        converted = convert_to_python(converted)
    if not isinstance(converted, list | tuple):
        shape = getattr(converted, "shape", None)
        raise ValueError(
            f"{what} is a {type(values).__name__}{f' of the shape {shape}' if shape else ''}; "
            "give a list or an array with one cell per row."
        )
    return [_convert_cell(cell, f"{what}, row {row}") for row, cell in enumerate(converted)]


def _convert_cell(cell: Any, what: str) -> Any:
    if isinstance(cell, np.generic | np.ndarray):
        cell = cell.tolist()
    if isinstance(cell, bytes):
        try:
            cell = cell.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{what}: not UTF-8, byte {cell[error.start]:#04x} at offset {error.start}."
            ) from None
    # NaN and NaT differ from themselves.
    if cell is None or cell != cell or (isinstance(cell, str) and not cell):
        return None
    if isinstance(cell, tuple):
        return list(cell)
    if isinstance(cell, datetime.timedelta):
        raise ValueError(f"{what} is a duration; convert it to a number, such as its seconds.")
    if not isinstance(cell, _CELL_TYPES):
        raise ValueError(
            f"{what} is of type {type(cell).__name__}; give a text, a number, a truth value, a "
            "date, or a list of these."
        )
    return float(cell) if isinstance(cell, Decimal) else cell
