"""Categories: one integer token per column."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from mmjax.data.dataset import Modality
from mmjax.data.kinds.plotting import draw_text
from mmjax.data.kinds.protocols import Learned, RowScale, Summary
from mmjax.data.load.targets.class_names import format_class_name, sort_classes
from mmjax.data.load.targets.labels import feature_to_python

_SPECIAL = ("missing", "unknown")  # the first two tokens of every column


class CategoryModality(Modality):
    """One token per column; the tokens of all columns have one vocabulary."""

    __slots__ = ()

    def list_unknown_tokens(self) -> tuple[int, ...]:
        """Lists the tokens of unknown categories, one per column."""
        return tuple(i for i, name in enumerate(self.vocabulary) if name.endswith(": unknown"))

    def describe(self) -> str:
        """Describes the number of columns and tokens."""
        columns = "1 category" if self.shape == (1,) else f"{self.shape[0]} categories"
        return f"{columns}, {len(self.vocabulary)} tokens"


class Category(NamedTuple):
    """Categories, such as a color or a country: one integer token per column.

    Every column has tokens of its own: one for an empty cell, one for unknown categories, and one
    per category of the training split. Categories that are rare there share the token of the
    unknown ones, whose embedding is learned from them. If all cells of a row are empty, the
    modality is missing there.

    `mmjax.encoders.TextEncoder` embeds the tokens: with `encoder=Features()` each column becomes a
    token of the model, with `encoder=MLPEncoder()` the concatenated embeddings become one vector
    (Guo and Berkhahn, arXiv:1604.06737).

    Attributes:
      columns: one column per category, in this order, or a single one.
      min_count: a category with fewer examples in the training split is rare.

    Example:
      >>> pet = Category(("kind", "color"), min_count=1)
      >>> learned = pet.learn([["cat", "dog"], ["black", None]], None)
      >>> pet.read_cells(["dog", None], Path(), learned).tolist()
      [3, 4]
      >>> pet.declare_modality(learned).vocabulary[3:5]
      ('kind: dog', 'color: missing')
    """

    columns: str | tuple[str, ...]
    min_count: int = 2

    @staticmethod
    def matches_cells(cells: Sequence[Any]) -> bool:
        """Returns False: a short text may be a category or not, so the user decides."""
        return False

    def learn(self, columns: Sequence[Iterable[Any]], source: Any) -> dict[str, Any]:
        """Numbers the categories of each column that are not rare.

        Returns:
          "tokens", per column {category: token}, and "starts", per column its first token.
        """
        return self.learn_summary(self.summarize_cells(columns, source))

    def summarize_cells(self, columns: Sequence[Iterable[Any]], source: Any) -> dict[str, Any]:
        """Counts the categories of each column."""
        counts_of: list[dict[str, int]] = []
        for column in columns:
            counts: Counter[str] = Counter()
            for cell in (cell for cell in column if cell is not None):
                # A cell without a name is refused when its row is read, with the row's place.
                with contextlib.suppress(ValueError):
                    counts[_format_category(cell)] += 1
            counts_of.append(dict(counts))
        return {"counts": counts_of}

    def merge_summaries(self, first: Summary, second: Summary) -> dict[str, Any]:
        """Adds the counts."""
        pairs = zip(first["counts"], second["counts"], strict=True)
        return {"counts": [dict(Counter(a) + Counter(b)) for a, b in pairs]}

    def learn_summary(self, summary: Summary) -> dict[str, Any]:
        """Numbers the categories of each column that are not rare."""
        tokens: list[dict[str, int]] = []
        starts, start = [], 0
        for counts in summary["counts"]:
            names = sort_classes({n for n, count in counts.items() if count >= self.min_count})
            starts.append(start)
            tokens.append({n: start + len(_SPECIAL) + i for i, n in enumerate(names)})
            start += len(_SPECIAL) + len(names)
        return {"tokens": tokens, "starts": starts}

    def read_cells(
        self, cells: Sequence[Any], folder: Path, learned: Learned
    ) -> Int[np.ndarray, " d"]:
        """Looks up the token of each cell."""
        row = []
        for cell, tokens, start in zip(cells, learned["tokens"], learned["starts"], strict=True):
            missing, unknown = start, start + 1
            row.append(missing if cell is None else tokens.get(_format_category(cell), unknown))
        return np.array(row, np.int32)

    def read_feature(self, values: Sequence[Any], learned: Learned) -> np.ndarray | None:
        """Looks up the token of each name or whole number; None if all are empty."""
        cells = [feature_to_python(value) for value in values]
        if all(cell is None for cell in cells):
            return None
        return self.read_cells(cells, Path(), learned)

    def declare_modality(self, learned: Learned) -> Modality:
        """Returns a vector of tokens, with the name of each."""
        columns = (self.columns,) if isinstance(self.columns, str) else self.columns
        names: list[str] = []
        for column, tokens in zip(columns, learned["tokens"], strict=True):
            names += [f"{column}: {name}" for name in (*_SPECIAL, *tokens)]
        return CategoryModality((), False, tuple(names))

    @staticmethod
    def name_axes(x: np.ndarray, modality: Modality) -> tuple[str, str] | None:
        """Returns empty names if the modality is one of categories."""
        return ("", "") if isinstance(modality, CategoryModality) else None

    @staticmethod
    def draw(axis: Any, x: np.ndarray, scale: RowScale) -> None:
        """Writes the categories."""
        draw_text(axis, ", ".join(scale.vocabulary[i] for i in x) or str(x.tolist()))


def _format_category(cell: Any) -> str:
    try:
        return format_class_name(feature_to_python(cell))
    except ValueError as error:
        raise ValueError(f"it is {error}") from None
