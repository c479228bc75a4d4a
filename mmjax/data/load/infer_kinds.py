"""Infers the kind of a column that is given by name only."""

import re
from collections.abc import Sequence
from typing import Any

from mmjax.data.kinds import INPUT_KINDS, TARGET_KINDS, Input, Label, Target, Text, Value
from mmjax.data.load.tables.dialect import Dialect
from mmjax.data.load.tables.table_files import Table, is_number

TablePart = tuple[Table, Sequence[int]]
"""A table, and the rows of it that count."""

_MAX_ODD_CELLS = 0.1  # share of cells of another kind that are taken for errors
_FOREIGN_NUMBER = re.compile(
    r"\s*[+-]?(?:[0-9]+,[0-9]+|[0-9]{1,3}(?:([.,' \N{NO-BREAK SPACE}])[0-9]{3})(?:\1[0-9]{3})*"
    r"(?:[.,][0-9]+)?)\s*"
)
_FOREIGN_DATE = re.compile(
    r"\s*(?:[0-9]{1,2}([./-])[0-9]{1,2}\1(?:[0-9]{4}|[0-9]{2})|[0-9]{4}([./])[0-9]{1,2}\2[0-9]{1,2})"
    r"(?:[ T,]+[0-9:.]+(?: ?[AaPp][Mm])?)?\s*"
)
_MEASURES = {
    "an amount": re.compile(r"\s*(?:[$€£¥] ?[+-]?[0-9.,]*[0-9]|[+-]?[0-9.,]*[0-9] ?[%‰$€£¥])\s*"),
    "a time of day": re.compile(r"\s*[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?\s*"),
}
_FILE_NAME = re.compile(r".*\.[A-Za-z][A-Za-z0-9]{1,4}")
_CHECKED_FILES = 3


def infer_input_kind(modality: str, column: str, train: TablePart, dialect: Dialect) -> Input:
    """Infers the kind of an input from its cells in the training split.

    Raises:
      ValueError: if there are none, most of them are of one kind and others are not, or a kind is
        likely but has to be named.
    """
    cells = [c for c in _list_cells(column, train, dialect) if c is not None]
    if not cells:
        raise ValueError(
            f"{train[0].path}: column {column!r} of modality {modality!r} is empty in the training "
            "split."
        )
    kind = next(kind for kind in INPUT_KINDS if kind.matches_cells(cells))
    if any(isinstance(cell, set | frozenset) for cell in cells):
        raise ValueError(
            f"{train[0].path}: column {column!r} of modality {modality!r} holds sets, which have "
            "no order; give texts or numbers, or read it as the target LabelSet."
        )
    if kind is Text:
        _check_no_odd_cells(modality, column, train, dialect)
        _check_likely_kinds(column, train, f"Text({column!r})")
    return kind(column)


def infer_target_kind(column: str, train: TablePart, dialect: Dialect) -> Target:
    """Infers the kind of a target from its cells in the training split.

    Raises:
      ValueError: if they look like numbers of another dialect, or all but a few are numbers.
    """
    cells = [c for c in _list_cells(column, train, dialect) if c is not None]
    kind = next(kind for kind in TARGET_KINDS if kind.matches_cells(cells))
    if kind is Label and cells:
        _check_numbers(column, train, f"Label({column!r})")
        _check_no_odd_target(column, train, dialect)
    return kind(column)


def _check_no_odd_target(column: str, train: TablePart, dialect: Dialect) -> None:
    """Refuses to take numbers for the names of classes because of a few other cells.

    Raises:
      ValueError: naming the first cell that is not a number.
    """
    table, rows = train
    cells = dict(zip(rows, _list_cells(column, train, dialect), strict=True))
    filled = [row for row in rows if cells[row] is not None]
    odd = [row for row in filled if not is_number(cells[row])]
    numbers = [cells[row] for row in filled if is_number(cells[row])]
    if odd and len(odd) <= _MAX_ODD_CELLS * len(filled) and Value.matches_cells(numbers):
        raise ValueError(
            f"{table.place(odd[0])}, column {column!r}: {table.columns[column][odd[0]]!r} is not a "
            f"number, as {len(numbers)} of {len(filled)} cells are. Leave it empty if it is "
            f"missing, correct it, or name the kind of the target, such as Value({column!r}) or "
            f"Label({column!r})."
        )


def _list_cells(column: str, train: TablePart, dialect: Dialect) -> list[Any]:
    """Lists cells, with numbers as Python writes them."""
    table, rows = train
    cells = [table.columns[column][row] for row in rows]
    if table.lines is None or not dialect.writes_other_numbers():
        return cells
    for i, cell in enumerate(cells):
        if cell is not None:
            number = dialect.format_number(cell)
            # What is a number only for Python must match no kind of numbers: it gets quotes.
            cells[i] = number or (f"'{cell}'" if is_number(cell) else cell)
    return cells


def _check_no_odd_cells(modality: str, column: str, train: TablePart, dialect: Dialect) -> None:
    """Refuses to read a column as text if most of its cells are of another kind.

    Raises:
      ValueError: naming the first cell that is not of that kind.
    """
    table, rows = train
    cells = _list_cells(column, train, dialect)
    filled = [i for i, cell in enumerate(cells) if cell is not None]
    for kind in INPUT_KINDS:
        if kind is Text:
            continue
        odd: list[int] = []
        for i in filled:
            if not kind.matches_cells([cells[i]]):
                odd.append(rows[i])
            if len(odd) > _MAX_ODD_CELLS * len(filled):
                break
        else:
            raise ValueError(
                f"{table.place(odd[0])}, column {column!r}: {table.columns[column][odd[0]]!r} is "
                f"not of the kind {kind.__name__}, as {len(filled) - len(odd)} of "
                f"{len(filled)} cells are. Leave it empty if it is missing, correct it, or name "
                f"the kind of {modality!r}, such as Text({column!r})."
            )


def _check_likely_kinds(column: str, train: TablePart, other: str) -> None:
    """Refuses a column whose cells look like numbers, times, dates or files in an unknown form.

    Raises:
      ValueError: naming one of the cells, and what to write.
    """
    _check_numbers(column, train, other)
    table, rows = train
    filled = [row for row in rows if table.columns[column][row] is not None]
    row = _find_likely_row(_FOREIGN_DATE, column, train)
    if row is not None:
        raise ValueError(
            f"{table.place(row)}, column {column!r}: {table.columns[column][row]!r} looks "
            f"like a date that is not ISO 8601, as most cells do; give its format, such as "
            f"DateTime({column!r}, format='%d.%m.%Y'), or name the kind, such as {other}."
        )
    for row_number in filled[:_CHECKED_FILES]:
        cell = str(table.columns[column][row_number])
        if _FILE_NAME.fullmatch(cell) and (table.path.parent / cell).is_file():
            raise ValueError(
                f"{table.place(row_number)}, column {column!r}: {cell!r} is a file, whose ending "
                f"tells no kind; name it, such as Image({column!r}), Audio({column!r}) or {other}."
            )


def _check_numbers(column: str, train: TablePart, other: str) -> None:
    table, row = train[0], _find_likely_row(_FOREIGN_NUMBER, column, train)
    if row is not None:
        fix = (
            "convert the column to numbers"
            if table.lines is None
            else "give dialect=Dialect(decimal=',') or Dialect(thousands=',') to say which"
        )
        raise ValueError(
            f"{table.place(row)}, column {column!r}: {table.columns[column][row]!r} looks "
            f"like a number, but its signs may be decimal or thousands separators; {fix}, or name "
            f"the kind, such as {other}."
        )
    for what, pattern in _MEASURES.items():
        if (row := _find_likely_row(pattern, column, train)) is not None:
            raise ValueError(
                f"{table.place(row)}, column {column!r}: {table.columns[column][row]!r} looks like "
                f"{what}, as most cells do; convert the column to numbers, or name the kind, such "
                f"as {other}."
            )


def _find_likely_row(pattern: re.Pattern[str], column: str, train: TablePart) -> int | None:
    """Finds the first text of a pattern, if most cells are of the pattern or plain numbers."""
    table, rows = train
    filled = [row for row in rows if table.columns[column][row] is not None]
    odd, first = 0, None
    for row in filled:
        cell = table.columns[column][row]
        if is_number(cell):
            continue
        if isinstance(cell, str) and pattern.fullmatch(cell):
            first = row if first is None else first
        elif (odd := odd + 1) > _MAX_ODD_CELLS * len(filled):
            return None
    return first
