"""A number: the target of a regression."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from mmjax.data.dataset import Task
from mmjax.data.load.labels import feature_to_python
from mmjax.data.load.table_files import is_number, parse_number


class Value(NamedTuple):
    """The target of a regression.

    Attributes:
      column: holds a number.
      unit: its unit.

    Example:
      >>> Value("age", unit="years").read_cells(["12.5"])
      12.5
    """

    column: str
    unit: str = ""

    @staticmethod
    def matches_cells(cells: Sequence[Any]) -> bool:
        """Checks whether all cells are numbers and some are not whole; truth values are classes."""
        if any(isinstance(cell, bool) or not is_number(cell) for cell in cells):
            return False
        return not all(float(str(cell)).is_integer() for cell in cells)

    def read_cells(self, cells: Sequence[Any]) -> float:
        """Reads a number."""
        return parse_number(cells[0])

    def read_feature(self, values: Sequence[Any]) -> Any:
        """Returns a whole number as a float, others as Python has them."""
        value = feature_to_python(values[0])
        return float(value) if isinstance(value, int) else value

    def declare_task(self) -> Task:
        """Returns the regression."""
        return Task("regression", unit=self.unit)
