"""One label per token: the target of a sequence labeling."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.dataset import Task
from mmjax.data.load.targets.labels import feature_to_python


class TokenLabels(NamedTuple):
    """One class per step of a sequence, such as a part of speech per word.

    The number of labels of an example must be that of its steps. An empty name or a None in a list
    is a step without a label.

    Attributes:
      column: holds a list of Parquet, or a text with a separator.
      separator: between the labels of a text; None: blanks.
      classes: names of the classes; () takes those of the training split.

    Example:
      >>> TokenLabels("tags").read_cells(["DET NOUN"], Path())
      ['DET', 'NOUN']
    """

    column: str
    separator: str | None = None
    classes: tuple[str, ...] = ()

    def read_cells(self, cells: Sequence[Any], folder: Path) -> list[Any]:
        """Reads the labels of one sequence."""
        cell = cells[0]
        labels = cell if isinstance(cell, list) else str(cell).split(self.separator)
        return [None if label in (None, "") else label for label in labels]

    def read_feature(self, values: Sequence[Any]) -> Any:
        """Returns the labels of one sequence; None if there are none."""
        labels = [feature_to_python(label) for label in np.asarray(values[0], object).ravel()]
        return labels or None

    def declare_task(self) -> Task:
        """Returns the sequence labeling; without classes they are inferred."""
        return Task("sequence", tuple(self.classes))
