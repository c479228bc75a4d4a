"""The rows of one split in a block."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmjax.data.load.stored.blocks import Block


class SplitBlock(NamedTuple):
    """The rows of one split in a block.

    Attributes:
      block: the arrays.
      split: begins their names.
      path: the file that the rows are from.
      folder: that of the paths in its cells.
      has_lines: whether it has lines, as CSV files have.
      key: hash of all that the arrays depend on.
    """

    block: Block
    split: str
    path: Path
    folder: Path
    has_lines: bool
    key: str

    def read(self, name: str) -> np.ndarray:
        """Returns an array as a view of a memory map."""
        return self.block.read(f"{self.split}/{name}")

    def list_names(self) -> list[str]:
        """Lists the names of the arrays."""
        start = f"{self.split}/"
        return [n.removeprefix(start) for n in self.block.arrays if n.startswith(start)]

    def has(self, name: str) -> bool:
        """Checks whether there is an array."""
        return f"{self.split}/{name}" in self.block.arrays

    def place(self, row: int) -> str:
        """Returns the file, and the line or row in it."""
        what = "line" if self.has_lines else "row"
        return f"{self.path}, {what} {int(self.read('place')[row])}"

    def count_rows(self) -> int:
        """Returns the number of rows."""
        return self.block.arrays[f"{self.split}/place"].shape[0]


class BlockRows(NamedTuple):
    """Rows of one block.

    Attributes:
      block: the block.
      positions: their positions in the batch.
      rows: their numbers in the block.
    """

    block: SplitBlock
    positions: np.ndarray
    rows: np.ndarray
