"""The rows of a table as examples: cells are turned into arrays, and files read, when wanted."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.kinds import FILE_KINDS, GAP_KINDS, Input, Spans, Target, TokenLabels, get_columns
from mmjax.data.kinds.protocols import Learned
from mmjax.data.load.decode import UnreadableError
from mmjax.data.load.examples import Example
from mmjax.data.load.tables.blank_rows import keeps_blank_rows
from mmjax.data.load.tables.table_files import Table
from mmjax.data.load.targets.complete_task import check_step_labels

_UNREADABLE_FIX = "Correct it, or leave such rows out by skip_unreadable=True."


@dataclasses.dataclass(frozen=True)
class Reader:
    """How the cells of one modality become an array.

    Attributes:
      spec: the kind of the cells.
      learned: what the training split says about them.
    """

    spec: Input
    learned: Learned = dataclasses.field(default_factory=dict)

    def __call__(self, table: Table, row: int) -> np.ndarray | None:
        """Reads one row as an array; None if its cells are empty and do not count as gaps."""
        cells = _get_cells(self.spec, table, row)
        if cells is None:
            if not keeps_blank_rows(self.learned):
                return None
            cells = [None] * len(get_columns(self.spec))
        return self.spec.read_cells(cells, table.path.parent, self.learned)


@dataclasses.dataclass(frozen=True)
class TableRows:
    """Some rows of a table."""

    table: Table
    rows: Sequence[int]
    readers: Mapping[str, Reader]
    targets: Mapping[str, Target]

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self, rows: Sequence[int]) -> list[Example]:
        """Returns the examples of those rows, the files of which are read now."""
        return [self._example(self.rows[row]) for row in rows]

    def files(self) -> list[Path]:
        """Lists the images and recordings that the rows name."""
        paths, folder = [], self.table.path.parent
        for spec in [*(reader.spec for reader in self.readers.values()), *self.targets.values()]:
            if isinstance(spec, FILE_KINDS):
                cells = self.table.columns[get_columns(spec)[0]]
                filled = [cells[row] for row in self.rows if cells[row] is not None]
                list_files = getattr(spec, "list_files", lambda cell: [str(cell)])
                paths += [folder / file for cell in filled for file in list_files(cell)]
        return paths

    def place(self, row: int) -> str:
        """Returns the file, and the line or row in it."""
        return self.table.place(self.rows[row])

    @functools.cached_property
    def _sequences(self) -> set[str]:
        """The modalities whose steps may have labels."""
        modalities = {m: r.spec.declare_modality(r.learned) for m, r in self.readers.items()}
        return {m for m, modality in modalities.items() if modality.sequence}

    def _example(self, row: int) -> Example:
        what = ""
        try:
            inputs = {}
            for what, reader in self.readers.items():
                inputs[what] = reader(self.table, row)
            targets = {}
            for what, spec in self.targets.items():
                targets[what] = self._read_target(spec, row, inputs)
        except ValueError as error:
            is_unreadable = isinstance(error, UnreadableError)
            kind = UnreadableError if is_unreadable else ValueError
            fix = f" {_UNREADABLE_FIX}" if is_unreadable else ""
            raise kind(f"{self.table.place(row)}, {what!r}: {error}{fix}") from None
        return Example(inputs, targets)

    def _read_target(self, spec: Target, row: int, inputs: Mapping[str, np.ndarray | None]) -> Any:
        cells = _get_cells(spec, self.table, row)
        if cells is None:
            return None
        target = spec.read_cells(cells, self.table.path.parent)
        if target is not None and isinstance(spec, TokenLabels | Spans):
            check_step_labels(target, {m: x for m, x in inputs.items() if m in self._sequences})
        return target


def _get_cells(spec: Input | Target, table: Table, row: int) -> list[Any] | None:
    """Returns the cells that a kind reads; None if all are empty.

    Raises:
      ValueError: if only some are, and the kind has no place for gaps.
    """
    names = get_columns(spec)
    cells = [table.columns[name][row] for name in names]
    empty = [name for name, cell in zip(names, cells, strict=True) if cell is None]
    if empty and len(empty) < len(names) and not isinstance(spec, GAP_KINDS):
        raise ValueError(
            f"column {empty[0]!r} is empty and others are not; fill it, or make it a modality or "
            "task of its own."
        )
    return None if len(empty) == len(names) else cells
