"""A number, or a vector of numbers: the target of a regression."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.dataset import Task
from mmjax.data.kinds.numbers import is_vector_text, parse_number_vector
from mmjax.data.load.tables.table_files import is_number, parse_number
from mmjax.data.load.targets.labels import feature_to_python


class Value(NamedTuple):
    """The target of a regression.

    Attributes:
      column: holds a number, or a vector: a list of Parquet or a text such as "[1, 2]"; several
        columns are a vector, too.
      unit: its unit.

    Example:
      >>> Value("age", unit="years").read_cells(["12.5"], Path())
      12.5
      >>> Value(("x", "y")).read_cells(["12.5", "1"], Path())
      [12.5, 1.0]
    """

    column: str | tuple[str, ...]
    unit: str = ""

    @staticmethod
    def matches_cells(cells: Sequence[Any]) -> bool:
        """Checks whether all cells are numbers and some are not whole; truth values are classes."""
        if any(isinstance(cell, bool) or not is_number(cell) for cell in cells):
            return False
        return not all(float(str(cell)).is_integer() for cell in cells)

    def read_cells(self, cells: Sequence[Any], folder: Path) -> float | list[float]:
        """Reads a number or a vector."""
        if not isinstance(self.column, str):
            return [parse_number(cell) for cell in cells]
        if isinstance(cells[0], list) or is_vector_text(cells[0]):
            return parse_number_vector(cells[0])
        return parse_number(cells[0])

    def read_feature(self, values: Sequence[Any]) -> Any:
        """Returns numbers as floats, others as Python has them."""
        if not isinstance(self.column, str):
            return [float(value) for value in values]
        value = feature_to_python(values[0])
        if isinstance(value, list):
            return np.asarray(value, np.float64).tolist()
        return float(value) if isinstance(value, int) else value

    def declare_task(self) -> Task:
        """Returns the regression; the length of a vector in one column is measured."""
        shape = () if isinstance(self.column, str) else (len(self.column),)
        return Task("regression", unit=self.unit, shape=shape)
