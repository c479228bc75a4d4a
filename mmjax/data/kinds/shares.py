"""Soft labels: a distribution over classes, such as the votes of several annotators."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data.dataset import Task
from mmjax.data.load.tables.table_files import parse_number


class Shares(NamedTuple):
    """The target of a classification with soft labels: a distribution over the classes.

    The loss of `mmjax.heads.Classification` is the cross-entropy against it; metrics count the
    class with the largest share, the first of equal ones.

    Attributes:
      columns: one per class, with counts of votes or probabilities, which are divided by their sum.

    Example:
      >>> Shares(("cat", "dog")).read_cells(["3", "1"], Path())
      [0.75, 0.25]
    """

    columns: tuple[str, ...]

    def read_cells(self, cells: Sequence[Any], folder: Path) -> list[float]:
        """Reads the shares of one row."""
        numbers = [parse_number(cell) for cell in cells]
        total = math.fsum(numbers)
        if min(numbers) < 0 or total <= 0:
            raise ValueError(f"{numbers} are not shares: give no negative one, and one over 0.")
        return [number / total for number in numbers]

    def read_feature(self, values: Sequence[Any]) -> Any:
        """Reads the shares of one record."""
        return self.read_cells([float(value) for value in values], Path())

    def declare_task(self) -> Task:
        """Returns the classification, whose targets have one number per class."""
        return Task("classification", tuple(self.columns), shape=(len(self.columns),))
