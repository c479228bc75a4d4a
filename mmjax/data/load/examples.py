"""Examples before padding, as tables and TFDS data sets are read."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


class Example(NamedTuple):
    """One example before padding.

    Attributes:
      inputs: {modality: array, or None if it is missing}; sequences keep their own lengths.
      targets: {task: value, or None if it is unlabeled}.
    """

    inputs: dict[str, np.ndarray | None]
    targets: dict[str, Any]


@runtime_checkable
class Examples(Protocol):
    """Random access to examples, decoded one by one."""

    def __len__(self) -> int: ...

    def fetch(self, rows: Sequence[int]) -> list[Example]:
        """Returns the examples of those rows; an error names the place."""
        ...

    def place(self, row: int) -> str:
        """Returns where a row is, for messages."""
        ...
