"""Numbers: one vector per example."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.dataset import Modality
from mmjax.data.kinds.gaps import Fill, fill_gaps, learn_fills, merge_gaps, summarize_gaps
from mmjax.data.kinds.plotting import draw_text
from mmjax.data.kinds.protocols import Learned, RowScale, Summary
from mmjax.data.load.decode import convert_tensor
from mmjax.data.load.tables.table_files import is_number, parse_number


class Numbers(NamedTuple):
    """A vector of numbers.

    A cell is a number, or a vector: a list, or a text such as "[1, 2]". If some cells of a row are
    empty, each gets the fill of its column, and a column that has such gaps in the training split
    gets an indicator after all numbers: 1 at a gap. If all cells of a row are empty, the modality
    is missing there.

    Attributes:
      columns: one column per number or vector, in this order, or a single one.
      fill: what replaces a gap: the "mean" or the "median" of the column in the training split.

    Example:
      >>> body = Numbers(("height", "weight"))
      >>> body.matches_cells(["1.75", 68, "[1, 2]"])
      True
      >>> learned = body.learn([["1.5", "1.7"], ["60", None]], None)
      >>> body.read_cells(["1.5", None], Path(), learned).tolist()
      [1.5, 60.0, 1.0]
    """

    columns: str | tuple[str, ...]
    fill: Fill = "mean"

    @staticmethod
    def matches_cells(cells: Sequence[Any]) -> bool:
        """Checks whether all cells are numbers or vectors."""
        return all(isinstance(c, list) or _is_plain_number(c) or is_vector_text(c) for c in cells)

    def learn(self, columns: Sequence[Iterable[Any]], source: Any) -> dict[str, Any]:
        """Computes the fills of gaps; nothing for a column without, vectors, or TFDS features."""
        return self.learn_summary(self.summarize_cells(columns, source))

    def summarize_cells(self, columns: Sequence[Iterable[Any]], source: Any) -> dict[str, Any]:
        """Computes the average of each column and counts its gaps; nothing for vectors."""
        if not isinstance(source, Path | None):
            return {}
        cells = [list(column) for column in columns]
        if any(_is_vector(cell) for column in cells for cell in column):
            return {}  # a vector has no one length to fill
        # A cell that is not a number is refused when its row is read, with the row's place.
        return summarize_gaps([map(_parse_or_nan, column) for column in cells], self.fill)

    def merge_summaries(self, first: Summary, second: Summary) -> dict[str, Any]:
        """Merges the averages and adds the gaps."""
        return merge_gaps(first, second) if first and second else {}

    def learn_summary(self, summary: Summary) -> dict[str, Any]:
        """Computes the fills of gaps; nothing for a single column without."""
        if not summary or (len(summary["gaps"]) == 1 and not summary["gaps"][0]):
            return {}
        return learn_fills(summary, self.fill)

    def read_cells(self, cells: Sequence[Any], folder: Path, learned: Learned) -> np.ndarray:
        """Concatenates the numbers and the vectors of all cells; gaps are filled."""
        names = (self.columns,) if isinstance(self.columns, str) else self.columns
        if "fills" in learned:
            values = [None if cell is None else parse_number(cell) for cell in cells]
            return fill_gaps(values, names, learned)
        numbers: list[float] = []
        for cell, name in zip(cells, names, strict=True):
            if cell is None:
                raise ValueError(f"column {name!r} is empty; a missing vector cannot be filled.")
            numbers += parse_number_vector(cell) if _is_vector(cell) else [parse_number(cell)]
        return np.array(numbers, np.float64)

    def read_feature(self, values: Sequence[Any], learned: Learned) -> np.ndarray | None:
        """Concatenates tensors of one axis; None if all numbers are NaN."""
        return convert_tensor(np.concatenate([np.atleast_1d(value) for value in values]))

    def declare_modality(self, learned: Learned) -> Modality:
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


def is_vector_text(cell: Any) -> bool:
    """Checks whether a cell is a text in brackets, such as "[1, 2]"."""
    return isinstance(cell, str) and cell.strip()[:1] == "[" and cell.strip()[-1:] == "]"


def _is_plain_number(cell: Any) -> bool:
    """Checks whether a cell is a number that is not a truth value of Parquet or a DataFrame."""
    return not isinstance(cell, bool) and is_number(cell)


def _parse_or_nan(cell: Any) -> float | None:
    return None if cell is None else float(cell) if is_number(cell) else math.nan


def _is_vector(cell: Any) -> bool:
    return isinstance(cell, list) or is_vector_text(cell)


def parse_vector(cell: Any) -> list[Any]:
    """Returns the elements of a list, or of a text: JSON, or NumPy's "[1. 2.]".

    Raises:
      ValueError: if it is neither.

    Example:
      >>> parse_vector("[1, 2.5]"), parse_vector("[1. 2.5]")
      ([1, 2.5], ['1.', '2.5'])
    """
    if isinstance(cell, list):
        return cell
    try:
        elements = json.loads(cell)
    except ValueError:
        text = cell.strip()[1:-1]
        # An empty element, as of "[1,, 2]", is not left out.
        elements = [e.strip() for e in text.split(",")] if "," in text else text.split()
    if not isinstance(elements, list) or not elements or "" in elements:
        raise ValueError(f"{cell!r} is not a vector such as '[1, 2]'; correct it.")
    return elements


def parse_number_vector(cell: Any) -> list[float]:
    """Returns the numbers of a list, or of a text.

    Raises:
      ValueError: naming the cell and the element that is not a number.

    Example:
      >>> parse_number_vector("[1, 2.5]")
      [1.0, 2.5]
    """
    elements = parse_vector(cell)
    try:
        return [parse_number(element) for element in elements]
    except ValueError as error:
        raise ValueError(f"{str(cell)[:80]!r}: {error}") from None
