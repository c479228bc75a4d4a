"""The methods that a kind of column has: infer, learn, read, declare, draw."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from mmjax.data.dataset import Modality, Task

# What the training split says about the columns of a kind, such as "words" of a `Text` or "rate" of
# an `Audio`. Plain JSON (numbers, strings, lists, dictionaries of them): a run stores it, so that
# new rows are read in the same way.
Learned = Mapping[str, Any]
# What some rows of the training split contribute to it. Plain JSON, too.
Summary = Mapping[str, Any]


class RowScale(NamedTuple):
    """The common scale on which the examples of one modality are plotted.

    Attributes:
      low: the smallest value.
      high: the largest value.
      longest: the length of the longest first axis.
      vocabulary: the meaning of each integer token; () if it is not known.
    """

    low: float
    high: float
    longest: int
    vocabulary: tuple[str, ...] = ()

    def add_margin(self) -> tuple[float, float]:
        """Returns limits a little beyond the range, which may be empty."""
        margin = 0.05 * (self.high - self.low) or 1.0  # constant values need limits, too
        return self.low - margin, self.high + margin


class InputKind(Protocol):
    """A kind of column that becomes a modality: a NamedTuple whose first field names the columns.

    A kind that has the name of a TFDS feature reads it by default.
    """

    @staticmethod
    def matches_cells(cells: Sequence[Any]) -> bool:
        """Checks whether all filled cells of a table's column look like this kind."""
        ...

    def learn(self, columns: Sequence[Iterable[Any]], source: Any) -> dict[str, Any]:
        """Returns what the training split determines, see `Learned`.

        Args:
          columns: per column its cells in the rows that have any, None where they are empty, or per
            feature its values.
          source: the folder of the table, or the first TFDS feature.
        """
        ...

    def read_cells(self, cells: Sequence[Any], folder: Path, learned: Learned) -> np.ndarray | None:
        """Converts the cells of one row; paths are relative to the table's folder.

        Some cells, but not all, may be None if the kind is one of `GAP_KINDS`.
        """
        ...

    def read_feature(self, values: Sequence[Any], learned: Learned) -> np.ndarray | None:
        """Converts the values of one TFDS record; None if they are missing."""
        ...

    def declare_modality(self, learned: Learned) -> Modality:
        """Returns the modality except for its shape, which is measured."""
        ...

    @staticmethod
    def name_axes(x: np.ndarray, modality: Modality) -> tuple[str, str] | None:
        """Names the axes of the plot of an example; None if it is not of this kind."""
        ...

    @staticmethod
    def draw(axis: Any, x: np.ndarray, scale: RowScale) -> None:
        """Draws one example without its padding."""
        ...


@runtime_checkable
class SummarizedKind(Protocol):
    """A kind of input that learns from all rows of the training split, which can be summarized.

    What other kinds learn, the first rows that tell it decide.
    """

    def summarize_cells(self, columns: Sequence[Iterable[Any]], source: Any) -> Summary:
        """Summarizes some rows for `learn_summary`; the arguments are those of `learn`."""
        ...

    def merge_summaries(self, first: Summary, second: Summary) -> Summary:
        """Returns the summary of two sets of rows together."""
        ...

    def learn_summary(self, summary: Summary) -> dict[str, Any]:
        """Returns what `learn` returns for the rows of a summary."""
        ...


class TargetKind(Protocol):
    """A kind of column that becomes a task: a NamedTuple whose first field names the columns."""

    def read_cells(self, cells: Sequence[Any], folder: Path) -> Any:
        """Converts the cells of one row; paths are relative to the table's folder.

        Some cells, but not all, may be None if the kind is one of `GAP_KINDS`.
        """
        ...

    def read_feature(self, values: Sequence[Any]) -> Any:
        """Converts the values of one TFDS record; None if it is unlabeled."""
        ...

    def declare_task(self) -> Task | None:
        """Returns the task; None if it is inferred from the values."""
        ...
