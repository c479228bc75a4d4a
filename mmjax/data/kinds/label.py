"""A class: the target of a classification."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from mmjax.data.dataset import Task
from mmjax.data.load.labels import feature_to_python, format_class_name


class Label(NamedTuple):
    """The target of a classification.

    Attributes:
      column: holds the class, as a name or a whole number.
      classes: names of the classes; () takes those of the training split.

    Example:
      >>> Label("animal", ("cat", "dog")).declare_task().classes
      ('cat', 'dog')
    """

    column: str
    classes: tuple[str, ...] = ()

    @staticmethod
    def matches_cells(cells: Sequence[Any]) -> bool:
        """Returns True: every cell is the name of a class at least."""
        return True

    def read_cells(self, cells: Sequence[Any]) -> str:
        """Returns the name of the class."""
        try:
            return format_class_name(cells[0])
        except ValueError as error:
            raise ValueError(f"it is {error}") from None

    def read_feature(self, values: Sequence[Any]) -> Any:
        """Returns the value as Python has it."""
        return feature_to_python(values[0])

    def declare_task(self) -> Task | None:
        """Returns the classification if its classes are given."""
        return Task("classification", tuple(self.classes)) if self.classes != () else None
