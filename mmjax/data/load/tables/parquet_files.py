"""Reads Parquet files, a block of rows at a time."""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.limits import TABLE_SIZE_OPTION, LimitError, check_declared_size, format_size
from mmjax.data.load.tables.csv_files import check_header

_BYTES_PER_OBJECT = 32  # size of a number in a Python list


def import_pyarrow() -> Any:
    """Imports pyarrow with its Parquet part.

    Raises:
      ImportError: it is not installed; the message names the extra.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install 'mmjax[table]'.") from error
    return pyarrow


def is_parquet(path: Path) -> bool:
    """Checks whether a file begins as Parquet files do, or has their ending."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1" or path.suffix in (".parquet", ".pq")


def iterate_parquet(
    path: Path,
    columns: Collection[str] | None,
    rows: int,
    *,
    max_cell: int,
    max_bytes: int | None = None,
    groups: Sequence[int] | None = None,
) -> Iterator[dict[str, list[Any]]]:
    """Yields the cells of a file, `rows` rows at a time; an empty cell or NaN is None.

    Args:
      path: the file.
      columns: names of the columns; None: all.
      rows: number of rows per part.
      max_cell: the largest cell, in bytes.
      max_bytes: the largest size of all cells together; None: any.
      groups: numbers of the row groups to read; None: all.

    Raises:
      ImportError: if pyarrow is not installed.
      ValueError: naming the file, the row and the column of what is wrong.
    """
    pyarrow = import_pyarrow()
    parquet = pyarrow.parquet
    size = 0
    with _name_file(path):
        schema = parquet.read_schema(path)
        names = schema.names if columns is None else list(columns)
        check_header(schema.names, names, path)
        strings = [name for name in names if _is_string_type(schema.field(name).type)]
        # A dictionary is read as one, since a long string in it may stand in every row.
        with parquet.ParquetFile(path, read_dictionary=strings) as file:
            if max_bytes is not None:
                _check_parquet_size(file.metadata, path, names, max_bytes)
            start = sum(map(_get_group_rows(file.metadata), range(min(groups or (0,)))))
            for batch in file.iter_batches(batch_size=rows, columns=names, row_groups=groups):
                cells: dict[str, list[Any]] = {}
                for name in names:
                    column = batch.column(name)
                    size += _check_cell_sizes(column, path, name, start, max_cell)
                    if max_bytes is not None:
                        check_declared_size(path, size, max_bytes, TABLE_SIZE_OPTION)
                    cells[name] = _convert_to_python_cells(column, path, name, start)
                yield cells
                start += len(batch)


def list_row_groups(path: Path) -> tuple[list[int], int, dict[str, str]]:
    """Returns the number of rows of each row group, the unpacked size, and {column: its type}.

    Raises:
      ImportError: if pyarrow is not installed.
      ValueError: naming the file, if it is damaged.
    """
    pyarrow = import_pyarrow()
    with _name_file(path), pyarrow.parquet.ParquetFile(path) as file:
        sizes = list(map(_get_group_rows(file.metadata), range(file.metadata.num_row_groups)))
        unpacked = sum(file.metadata.row_group(g).total_byte_size for g in range(len(sizes)))
        types = {field.name: _name_type(field.type) for field in file.schema_arrow}
    return sizes, unpacked, types


def _get_group_rows(metadata: Any) -> Any:
    return lambda group: metadata.row_group(group).num_rows


@contextlib.contextmanager
def _name_file(path: Path) -> Iterator[None]:
    """Raises errors of pyarrow again with the name of the file."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not a whole Parquet file: {reason.rstrip('.')}.") from None


def _name_type(kind: Any) -> str:
    """Names the type of a column, where all numbers are one type, and all texts."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _name_type(kind.value_type)
    for name, is_type in (
        ("texts", lambda t: types.is_string(t) or types.is_large_string(t)),
        ("numbers", lambda t: types.is_integer(t) or types.is_floating(t) or types.is_decimal(t)),
        ("dates", lambda t: types.is_date(t) or types.is_timestamp(t)),
        ("lists", lambda t: types.is_list(t) or types.is_large_list(t)),
        ("truth values", types.is_boolean),
        ("gaps", types.is_null),
    ):
        if is_type(kind):
            return name
    return str(kind)


def _is_string_type(kind: Any) -> bool:
    import pyarrow

    return kind in (pyarrow.string(), pyarrow.large_string())


def _check_parquet_size(metadata: Any, path: Path, columns: Sequence[str], max_bytes: int) -> None:
    """Refuses a file whose declared column sizes exceed the limit, before any column is read.

    Numbers count too: encoded runs of one value are small in the file but not in memory.
    """
    size = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema.partition(".")[0] in columns:
                size += max(chunk.total_uncompressed_size, _BYTES_PER_OBJECT * chunk.num_values)
    check_declared_size(path, size, max_bytes, TABLE_SIZE_OPTION)


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
        kind = column.type
        # Cell by cell only what can be NaN, a text or a list: numbers have nothing to convert.
        if pyarrow.types.is_integer(kind) or pyarrow.types.is_boolean(kind):
            return values
        if pyarrow.types.is_floating(kind):
            return [None if value != value else value for value in values]
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
