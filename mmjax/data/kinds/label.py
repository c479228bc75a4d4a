"""A class: the target of a classification, or of a task with ordered classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data.dataset import Task
from mmjax.data.load.targets.class_names import format_class_name
from mmjax.data.load.targets.labels import feature_to_python


class Label(NamedTuple):
    """The target of a classification.

    Attributes:
      column: holds the class, as a name or a whole number.
      classes: names of the classes; () takes those of the training split.
      ordered: whether the classes have an order, for `mmjax.heads.Ordinal`: that of `classes`,
        or of the numbers if () is given.

    Example:
      >>> Label("animal", ("cat", "dog")).declare_task().classes
      ('cat', 'dog')
      >>> Label("stars", ordered=True).declare_task().kind
      'ordinal'
    """

    column: str
    classes: tuple[str, ...] = ()
    ordered: bool = False

    @staticmethod
    def matches_cells(cells: Sequence[Any]) -> bool:
        """Returns True: every cell is the name of a class at least."""
        return True

    def read_cells(self, cells: Sequence[Any], folder: Path) -> str:
        """Returns the name of the class."""
        try:
            return format_class_name(cells[0])
        except ValueError as error:
            raise ValueError(f"it is {error}") from None

    def read_feature(self, values: Sequence[Any]) -> Any:
        """Returns the value as Python has it."""
        return feature_to_python(values[0])

    def declare_task(self) -> Task | None:
        """Returns the task; None if its classes are inferred and have no order."""
        if self.classes == () and not self.ordered:
            return None
        return Task("ordinal" if self.ordered else "classification", tuple(self.classes))
