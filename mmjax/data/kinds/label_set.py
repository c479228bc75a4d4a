"""A set of labels in one cell: the target of a multi-label task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.dataset import Task
from mmjax.data.load.targets.class_names import format_class_name
from mmjax.data.load.targets.labels import feature_to_python


class LabelSet(NamedTuple):
    """The set of labels that an example has, such as tags, all in one cell.

    An empty cell has no label information. "[]", or an empty list of Parquet, is the empty set.
    `Labels` reads one column per class instead.

    Attributes:
      column: holds a list of Parquet, or a text with a separator.
      separator: between the labels of a text.
      classes: names of the classes; () takes those of the training split.

    Example:
      >>> sorted(LabelSet("tags").read_cells(["tame; big"], Path()))
      ['big', 'tame']
    """

    column: str
    separator: str = ";"
    classes: tuple[str, ...] = ()

    def read_cells(self, cells: Sequence[Any], folder: Path) -> frozenset[str]:
        """Reads the names of a set."""
        cell = cells[0]
        if not isinstance(cell, list | tuple | set | frozenset | np.ndarray):
            text = str(cell).strip()
            cell = [] if text == "[]" else text.split(self.separator)
        names = (format_class_name(feature_to_python(label) or "").strip() for label in cell)
        return frozenset(name for name in names if name)

    def read_feature(self, values: Sequence[Any]) -> Any:
        """Reads the names of a set; None if it is missing."""
        value = feature_to_python(values[0])
        return None if value is None else self.read_cells([value], Path())

    def declare_task(self) -> Task:
        """Returns the multi-label task; without classes they are inferred."""
        return Task("multilabel", tuple(self.classes))
