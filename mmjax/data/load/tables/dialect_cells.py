"""Converts the cells of a CSV file according to its dialect: gaps and numbers."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from mmjax.data.kinds import Category, Input, Label, Numbers, Shares, Target, Value, get_columns
from mmjax.data.load.tables.dialect import Dialect
from mmjax.data.load.tables.table_files import Table


class Gaps(NamedTuple):
    """The cells of a table that were spellings of a gap, such as "NA": {column: {row: cell}}."""

    table: Table
    cells: dict[str, dict[int, str]]


def blank_missing_cells(table: Table, dialect: Dialect) -> dict[str, dict[int, str]]:
    """Replaces the spellings of a gap in a CSV file by None.

    Returns:
      {column: {row: its cell}} of the columns and rows that had one.

    Example:
      >>> from pathlib import Path
      >>> table = Table(Path("t.csv"), {"x": ["1", "NA", None]}, [2, 3, 4])
      >>> blank_missing_cells(table, Dialect()), table.columns["x"]
      ({'x': {1: 'NA'}}, ['1', None, None])
    """
    blanked: dict[str, dict[int, str]] = {}
    if table.lines is None:
        return blanked
    spellings = frozenset(dialect.missing)
    for name, cells in table.columns.items():
        if not spellings.isdisjoint(cells):
            blanked[name] = {row: cell for row, cell in enumerate(cells) if cell in spellings}
            table.columns[name] = [None if cell in spellings else cell for cell in cells]
    return blanked


def normalize_numbers(
    table: Table, columns: Iterable[str], dialect: Dialect, *, strict: bool = True
) -> None:
    """Writes the numbers of a CSV file's columns as `float` reads them.

    Args:
      table: the table, whose columns are replaced.
      columns: the names of the columns.
      dialect: how the numbers are written.
      strict: whether every cell must be a number, or a vector in brackets; otherwise a column with
        another cell stays as it is.

    Raises:
      ValueError: naming the place, the column and the cell that is not a number.

    Example:
      >>> from pathlib import Path
      >>> table = Table(Path("t.csv"), {"x": ["1,5", "2"]}, [2, 3])
      >>> normalize_numbers(table, ["x"], Dialect(separator=";", decimal=","))
      >>> table.columns["x"]
      ['1.5', '2']
    """
    if table.lines is None or not dialect.writes_other_numbers():
        return
    for name in columns:
        cells: list[Any] = []
        for row, cell in enumerate(table.columns[name]):
            is_text = isinstance(cell, str) and not cell.lstrip().startswith("[")
            number = dialect.format_number(cell) if is_text else cell
            if number is None and cell is not None:
                if not strict:
                    break
                raise ValueError(
                    f"{table.place(row)}, column {name!r}: {cell!r} is not a number with the "
                    f"decimal sign {dialect.decimal!r} and the thousands sign "
                    f"{dialect.thousands!r}; correct the cell, or the dialect."
                )
            cells.append(number)
        else:
            table.columns[name] = cells


def normalize_kinds(table: Table, specs: Iterable[Input | Target], dialect: Dialect) -> None:
    """Writes the numbers of the columns of some kinds as `float` reads them.

    Columns that the table lacks are passed over. Columns of names are only changed if all of their
    cells are numbers.

    Raises:
      ValueError: naming the place, the column and the cell that is not a number.
    """
    specs = list(specs)
    # Every column once, since a cell that was written anew is not of the dialect any more.
    strict: dict[str, bool] = {}
    for spec in specs:
        if isinstance(spec, Numbers | Value | Shares | Category | Label):
            for name in (n for n in get_columns(spec) if n in table.columns):
                is_strict = not isinstance(spec, Category | Label)
                strict[name] = strict.get(name, False) or is_strict
    for name, is_strict in strict.items():
        normalize_numbers(table, [name], dialect, strict=is_strict)
