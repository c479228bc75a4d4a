"""Writers of tables: CSV, Parquet or JSON lines, some rows at a time."""

import contextlib
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import files
from mmjax.data.load.tables.parquet_files import import_pyarrow
from mmjax.runs.prediction.predictions import Column

WriteRows = Callable[[Sequence[Column]], None]


@contextlib.contextmanager
def open_table_writer(path: Path) -> Iterator[WriteRows]:
    """Yields a function that writes rows; the file appears, complete, when the block ends.

    All calls must give the same columns. If the block raises, the file stays as it was.
    """
    with (
        files.replace_atomically(path) as draft,
        TABLE_WRITERS[path.suffix](draft) as write_columns,
    ):

        def write_rows(columns: Sequence[Column]) -> None:
            names = [column.name for column in columns]
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(
                        f"column {name!r} of the examples has the name of a prediction's column; "
                        "rename it."
                    )
            write_columns(columns)

        yield write_rows


@contextlib.contextmanager
def _write_csv(path: Path) -> Iterator[WriteRows]:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")

        def write_rows(columns: Sequence[Column]) -> None:
            if not file.tell():
                writer.writerow(column.name for column in columns)
            values = (map(_format_csv_cell, _list_values(column)) for column in columns)
            writer.writerows(zip(*values, strict=True))

        yield write_rows


@contextlib.contextmanager
def _write_json_lines(path: Path) -> Iterator[WriteRows]:
    with path.open("w", encoding="utf-8") as file:

        def write_rows(columns: Sequence[Column]) -> None:
            for record in iterate_records(columns):
                file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")

        yield write_rows


@contextlib.contextmanager
def _write_parquet(path: Path) -> Iterator[WriteRows]:
    pyarrow = import_pyarrow()
    with contextlib.ExitStack() as stack:
        writers: list[Any] = []

        def write_rows(columns: Sequence[Column]) -> None:
            schema = writers[0].schema if writers else None
            arrays = {}
            for column in columns:
                kind = _make_arrow_type(column.kind) if column.kind is not None else None
                if schema is not None:
                    kind = schema.field(column.name).type
                arrays[column.name] = pyarrow.array(_list_values(column), kind)
            table = pyarrow.table(arrays)
            if not writers:
                writers.append(
                    stack.enter_context(pyarrow.parquet.ParquetWriter(path, table.schema))
                )
            writers[0].write_table(table)

        yield write_rows


TABLE_WRITERS = {".csv": _write_csv, ".parquet": _write_parquet, ".jsonl": _write_json_lines}


def iterate_records(columns: Sequence[Column]) -> Iterator[dict[str, Any]]:
    """Yields each row as {column: Python value}; NaN becomes None.

    Example:
      >>> list(iterate_records([Column("size", np.array([1.5, np.nan], np.float32), "float")]))
      [{'size': 1.5}, {'size': None}]
    """
    names = [column.name for column in columns]
    for row in zip(*map(_list_values, columns), strict=True):
        yield dict(zip(names, row, strict=True))


def _make_arrow_type(kind: Any) -> Any:
    """Converts the kind of a column to an Arrow type; an Arrow type is returned unchanged."""
    pyarrow = import_pyarrow()
    plain = {"string": pyarrow.string(), "float": pyarrow.float32(), "integer": pyarrow.int64()}
    if isinstance(kind, str):
        return plain[kind]
    if isinstance(kind, list):
        return pyarrow.list_(_make_arrow_type(kind[0]))
    if isinstance(kind, dict):
        return pyarrow.struct({name: _make_arrow_type(item) for name, item in kind.items()})
    return kind.value_type if pyarrow.types.is_dictionary(kind) else kind


def _list_values(column: Column) -> list[Any]:
    """Lists the cells of a column as Python values; NaN is None."""
    values = column.values
    if not isinstance(values, np.ndarray):
        return list(values)
    if values.ndim > 1 or values.dtype.kind != "f":
        return values.tolist()
    # The shortest text that stands for a float32 has fewer digits than that of its float64.
    return [None if x != x else float(str(x)) for x in values]


def _format_csv_cell(value: Any) -> Any:
    if isinstance(value, list | dict | bool):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else value
