"""Truth values: one number per column, 1 for true and 0 for false."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.dataset import Modality
from mmjax.data.kinds.gaps import fill_gaps, learn_fills, merge_gaps, summarize_gaps
from mmjax.data.kinds.numbers import Numbers
from mmjax.data.kinds.protocols import Learned, RowScale, Summary
from mmjax.data.load.decode import convert_tensor

_TRUE = {"true", "yes", "1", "1.0", "t", "y"}
_FALSE = {"false", "no", "0", "0.0", "f", "n"}


class Boolean(NamedTuple):
    """Truth values: true, yes, t, y or 1, and false, no, f, n or 0, in any case.

    A gap, an empty cell in a row that has others, gets the share of true cells in the training
    split, and an indicator as for `Numbers`. If all cells of a row are empty, the modality is
    missing there.

    Attributes:
      columns: one column per truth value, in this order, or a single one.

    Example:
      >>> Boolean("fee").read_cells(["True"], Path(), {"fills": [0.5], "indicators": []}).tolist()
      [1.0]
    """

    columns: str | tuple[str, ...]

    @staticmethod
    def matches_cells(cells: Sequence[Any]) -> bool:
        """Checks whether all cells are spelled true or false; other spellings may be names."""
        return all(str(cell).lower() in ("true", "false") for cell in cells)

    def learn(self, columns: Sequence[Iterable[Any]], source: Any) -> dict[str, Any]:
        """Computes the values that fill gaps; nothing for TFDS features."""
        return self.learn_summary(self.summarize_cells(columns, source))

    def summarize_cells(self, columns: Sequence[Iterable[Any]], source: Any) -> dict[str, Any]:
        """Computes the share of true cells of each column and counts its gaps."""
        if not isinstance(source, Path | None):
            return {}
        return summarize_gaps([map(_parse_or_nan, column) for column in columns], "mean")

    def merge_summaries(self, first: Summary, second: Summary) -> dict[str, Any]:
        """Merges the shares and adds the gaps."""
        return merge_gaps(first, second) if first and second else {}

    def learn_summary(self, summary: Summary) -> dict[str, Any]:
        """Computes the values that fill gaps."""
        return learn_fills(summary, "mean") if summary else {}

    def read_cells(self, cells: Sequence[Any], folder: Path, learned: Learned) -> np.ndarray:
        """Converts truth values; gaps are filled."""
        names = (self.columns,) if isinstance(self.columns, str) else self.columns
        values = [None if cell is None else parse_boolean(cell) for cell in cells]
        return fill_gaps(values, names, learned).astype(np.float32)

    def read_feature(self, values: Sequence[Any], learned: Learned) -> np.ndarray | None:
        """Concatenates tensors of truth values."""
        joined = np.concatenate([np.atleast_1d(value) for value in values])
        return convert_tensor(joined.astype(np.float32))

    def declare_modality(self, learned: Learned) -> Modality:
        """Returns the modality of vectors."""
        return Modality(())

    @staticmethod
    def name_axes(x: np.ndarray, modality: Modality) -> tuple[str, str] | None:
        """Names the axes as `Numbers` does."""
        return Numbers.name_axes(x, modality)

    @staticmethod
    def draw(axis: Any, x: np.ndarray, scale: RowScale) -> None:
        """Draws the values as `Numbers` does."""
        Numbers.draw(axis, x, scale)


def _parse_or_nan(cell: Any) -> float | None:
    """Parses a cell; one that is neither true nor false is refused when its row is read."""
    try:
        return None if cell is None else parse_boolean(cell)
    except ValueError:
        return math.nan


def parse_boolean(cell: Any) -> float:
    """Returns 1 for a true cell and 0 for a false one.

    Raises:
      ValueError: naming the cell, if it is neither.

    Example:
      >>> parse_boolean("No"), parse_boolean(True)
      (0.0, 1.0)
    """
    word = str(cell).strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(f"{cell!r} is neither true nor false; leave the cell empty if unknown.")
    return float(word in _TRUE)
