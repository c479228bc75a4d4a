"""Rows in which all inputs are empty: refused, dropped, or kept as gaps of the only modality."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from mmjax.data.kinds import Boolean, Category, Input, Numbers, get_columns
from mmjax.data.kinds.protocols import Learned
from mmjax.data.load.infer_kinds import TablePart
from mmjax.data.load.tables.dialect_cells import Gaps

BlankRows = Literal["refuse", "drop", "keep"]
"""What to do with rows in which all inputs are empty: refuse them, drop them, or keep them as gaps
of the only modality, which must be `Numbers`, `Boolean` or `Category`."""
_KEEP = "keep_blank_rows"  # a run stores it with what the training split says
_KINDS = (Numbers, Boolean, Category)


def check_blank_rows(blank_rows: str) -> None:
    """Raises ValueError if `blank_rows` is not one of its options."""
    if blank_rows not in ("refuse", "drop", "keep"):
        raise ValueError(f"blank_rows is {blank_rows!r}; it must be 'refuse', 'drop' or 'keep'.")


def list_cells(spec: Input, part: TablePart, blank_rows: BlankRows) -> list[list[Any]]:
    """Lists per column of a kind its cells, without rows in which all are empty unless kept."""
    table, rows = part
    names = get_columns(spec)
    columns: list[list[Any]] = [[] for _ in names]
    for row in rows:
        cells = [table.columns[name][row] for name in names]
        if blank_rows == "keep" or any(cell is not None for cell in cells):
            for column, cell in zip(columns, cells, strict=True):
                column.append(cell)
    return columns


def check_no_blank_rows(
    parts: Iterable[TablePart], columns: Sequence[str], gaps: Iterable[Gaps]
) -> None:
    """Refuses a row in which the cells of all inputs are empty.

    Raises:
      ValueError: naming the place, the cells that count as empty, and what to do.
    """
    for table, rows in parts:
        inputs = [table.columns[name] for name in columns]
        for row in rows:
            if any(cells[row] is not None for cells in inputs):
                continue
            spelled = []
            for gap in gaps:
                for name, cells in gap.cells.items():
                    if gap.table is table and name in columns and row in cells:
                        spelled.append(f"{cells[row]!r} of {name!r}")
            what = f"; {', '.join(spelled)} counts as empty" if spelled else ""
            raise ValueError(
                f"{table.place(row)} has none of the inputs {', '.join(columns)}{what}. Fill one, "
                "or give blank_rows='drop' to leave such rows out (or 'keep', see from_table)."
            )


def learn_blank_rows(
    spec: Input, columns: Sequence[Iterable[Any]], modalities: int
) -> dict[str, Any]:
    """Learns from all rows, including blank ones, which count as gaps.

    Raises:
      ValueError: as `check_has_gaps`.

    Example:
      >>> learned = learn_blank_rows(Numbers("age"), [["3", None, "5"]], 1)
      >>> learned["fills"], keeps_blank_rows(learned)
      ([4.0], True)
    """
    check_has_gaps(spec, modalities)
    return mark_blank_rows_kept(spec.learn(columns, None))


def check_has_gaps(spec: Input, modalities: int) -> None:
    """Refuses to keep blank rows of a kind without gaps, or beside other modalities.

    Raises:
      ValueError: saying what is needed instead.
    """
    if modalities > 1 or not isinstance(spec, _KINDS):
        kind = type(spec).__name__
        raise ValueError(
            f"blank_rows='keep' is for one modality of Numbers, Boolean or Category, but there "
            f"{'are several' if modalities > 1 else f'is one of {kind}'}; give 'drop', or fill the "
            "cells."
        )


def mark_blank_rows_kept(learned: Learned) -> dict[str, Any]:
    """Adds the mark that `keeps_blank_rows` looks for."""
    return {**learned, _KEEP: True}


def keeps_blank_rows(learned: Learned) -> bool:
    """Checks whether rows in which all cells are empty are gaps."""
    return bool(learned.get(_KEEP, False))
