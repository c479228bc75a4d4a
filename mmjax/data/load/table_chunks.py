"""Reading of tables a few rows at a time, for tables that need not fit into memory."""

import csv
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmjax.data.limits import MAX_CELL
from mmjax.data.load.table_files import (
    Table,
    _check_cell_sizes,
    _check_header,
    _convert_to_python_cells,
    _field_size_limit,
    _iterate_decoded_lines,
    is_parquet,
    open_csv,
)


def iterate_table(
    path: str | os.PathLike[str], rows: int, *, max_cell: int = MAX_CELL
) -> Iterator[Table]:
    """Yields a CSV or Parquet file as tables of `rows` rows each, with all columns.

    The cells are those that `mmjax.data.load.table_files.read_table` reads. The row numbers of a
    Parquet file count from the start of the file.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: a Parquet file needs a package that is not installed.
      ValueError: if the file is invalid, naming it and the line, or if it has no rows.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder, "pets.csv")
      ...     _ = path.write_text("kind,weight" + os.linesep + os.linesep.join(["cat,3"] * 5))
      ...     [len(table) for table in iterate_table(path, 2)]
      [2, 2, 1]
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Table {path} does not exist.")
    read = _iterate_parquet if is_parquet(path) else _iterate_csv
    is_empty = True
    for table in read(path, rows, max_cell):
        is_empty = False
        yield table
    if is_empty:
        raise ValueError(f"{path} has no rows.")


def _iterate_csv(path: Path, rows: int, max_cell: int) -> Iterator[Table]:
    with open_csv(path) as file:
        reader = csv.reader(_iterate_decoded_lines(file, path, max_cell), strict=True)
        numbered_rows = ((row, reader.line_num) for row in reader if row)  # no empty lines
        start, header = 0, list[str]()
        while True:
            # The limit is that of the whole process, so it is set only while rows are read.
            with _field_size_limit(max_cell):
                try:
                    header = header or next(numbered_rows, ([], 0))[0]
                    part = list(itertools.islice(numbered_rows, rows))
                except csv.Error as error:
                    raise ValueError(f"{path}, line {reader.line_num}: {error}.") from None
            if not part:
                return
            _check_header(header, header, path)
            for row, line in part:
                if len(row) != len(header):
                    raise ValueError(
                        f"{path}, line {line}: {len(row)} cells; the header has {len(header)}."
                    )
            columns = {name: [row[i] or None for row, _ in part] for i, name in enumerate(header)}
            yield Table(path, columns, [line for _, line in part], start)
            start += len(part)


def _iterate_parquet(path: Path, rows: int, max_cell: int) -> Iterator[Table]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install 'mmjax[table]'.") from error
    start = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_header(names, names, path)
            for batch in file.iter_batches(batch_size=rows):
                columns: dict[str, list[Any]] = {}
                for name in names:
                    column = batch.column(name)
                    _check_cell_sizes(column, path, name, start, max_cell)
                    columns[name] = _convert_to_python_cells(column, path, name, start)
                yield Table(path, columns, None, start)
                start += len(batch)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not a whole Parquet file: {reason.rstrip('.')}.") from None
