"""Numbers: one vector per example."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.dataset import Modality
from mmjax.data.kinds.plotting import draw_text
from mmjax.data.kinds.protocols import Learned, RowScale
from mmjax.data.load.decode import convert_tensor
from mmjax.data.load.table_files import is_number, parse_number


class Numbers(NamedTuple):
    """A vector of numbers.

    Attributes:
      columns: one column per number, in this order, or a single one.

    Example:
      >>> Numbers(("height", "weight")).matches_cells(["1.75", 68])
      True
    """

    columns: str | tuple[str, ...]

    @staticmethod
    def matches_cells(cells: Sequence[Any]) -> bool:
        """Checks whether all cells are numbers or lists."""
        return all(isinstance(cell, list) or is_number(cell) for cell in cells)

    def learn(self, values: Iterable[Any], source: Any) -> dict[str, Any]:
        """Returns nothing: numbers need no training split."""
        return {}

    def read_cells(self, cells: Sequence[Any], folder: Path, learned: Learned) -> np.ndarray:
        """Concatenates the numbers, and the lists of numbers, of all cells."""
        parts = [cell if isinstance(cell, list) else [cell] for cell in cells]
        return np.array([parse_number(value) for part in parts for value in part], np.float64)

    def read_feature(self, values: Sequence[Any], learned: Learned) -> np.ndarray | None:
        """Concatenates tensors of one axis; None if all numbers are NaN."""
        return convert_tensor(np.concatenate([np.atleast_1d(value) for value in values]))

    def declare_modality(self, words: Mapping[str, int]) -> Modality:
        """Returns the modality of vectors."""
        return Modality(())

    @staticmethod
    def name_axes(x: np.ndarray, modality: Modality) -> tuple[str, str] | None:
        """Names the axes of a curve; a single number has none."""
        if x.ndim > 1:
            return None
        return ("time step" if modality.sequence else "component", "value") if x.ndim else ("", "")

    @staticmethod
    def draw(axis: Any, x: np.ndarray, scale: RowScale) -> None:
        """Draws a curve, or writes a single number."""
        if x.ndim == 0:
            return draw_text(axis, f"{x:.4g}")
        axis.plot(x, linewidth=0.8, marker="." if scale.longest < 30 else "", color="#0072B2")
        axis.set_ylim(*scale.add_margin())
        axis.set_xlim(-0.5, scale.longest - 0.5)
        axis.locator_params(axis="x", nbins=4, integer=True)
