"""Several classes at once: the target of a multi-label task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data.dataset import Task

_TRUTH_VALUES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


class Labels(NamedTuple):
    """The target of a task with several labels at once.

    An empty cell in a row that has others is an unknown label: neither loss nor metrics count it.

    Attributes:
      columns: one per class, each cell 0 or 1.

    Example:
      >>> Labels(("big", "tame", "wild")).read_cells(["1", "false", None], Path())
      [1, 0, None]
    """

    columns: tuple[str, ...]

    def read_cells(self, cells: Sequence[Any], folder: Path) -> list[int | None]:
        """Reads truth values; None is unknown."""
        values: list[int | None] = []
        for cell in cells:
            if cell is not None and str(cell).lower() not in _TRUTH_VALUES:
                raise ValueError(
                    f"{cell!r} is neither 0 nor 1; leave the cell empty if it is unknown."
                )
            values.append(None if cell is None else _TRUTH_VALUES[str(cell).lower()])
        return values

    def read_feature(self, values: Sequence[Any]) -> Any:
        """Returns the values as they are."""
        return list(values)

    def declare_task(self) -> Task:
        """Returns the multi-label task of the columns."""
        return Task("multilabel", tuple(self.columns))
