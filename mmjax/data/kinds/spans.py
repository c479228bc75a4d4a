"""Spans of characters as one tag per token: the target of a sequence labeling."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mmjax.data.dataset import Task
from mmjax.data.kinds.text import list_token_offsets


class Spans(NamedTuple):
    """Spans of a text, such as names: tags B-NAME, I-NAME and O per token.

    A span is [start, end, name] or {"start": ..., "end": ..., "label": ...}: the characters from
    start to before end. A cell holds a list of them, as JSON or as a list of Parquet; "[]" has no
    span, and an empty cell no label. A token that overlaps a span belongs to it; the first one
    begins it (Ramshaw and Marcus, "Text Chunking using Transformation-Based Learning", 1995).

    Attributes:
      columns: the column of the spans, and the column of the text.
      level: as that of the `Text`.
      longest: as that of the `Text`.
      classes: all tags; () takes those of the training split.

    Example:
      >>> Spans(("who", "note")).read_cells(['[[3, 9, "PER"]]', "To Ada Lo."], Path())
      ['O', 'B-PER', 'I-PER', 'O']
    """

    columns: tuple[str, str]
    level: Literal["byte", "word"] = "word"
    longest: int | None = None
    classes: tuple[str, ...] = ()

    def read_cells(self, cells: Sequence[Any], folder: Path) -> list[str] | None:
        """Computes the tag of every token; None if spans or text are missing."""
        if None in cells:
            return None
        spans, text = _parse_spans(cells[0]), str(cells[1])
        tags, begun = [], set()
        for start, end in list_token_offsets(text, self.level)[: self.longest]:
            tag = "O"
            for number, (first, last, name) in enumerate(spans):
                if start < last and end > first:
                    tag = f"{'I' if number in begun else 'B'}-{name}"
                    begun.add(number)
                    break
            tags.append(tag)
        for number, (first, last, name) in enumerate(spans):
            if not 0 <= first < last <= len(text):
                raise ValueError(
                    f"the span [{first}, {last}, {name!r}] is not inside of a text of {len(text)} "
                    "characters; correct it."
                )
            if number not in begun and self.longest is None:
                raise ValueError(
                    f"the span [{first}, {last}, {name!r}] has no token of its own; leave it out."
                )
        return tags

    def read_feature(self, values: Sequence[Any]) -> Any:
        """Computes the tag of every token."""
        return self.read_cells(list(values), Path())

    def declare_task(self) -> Task:
        """Returns the sequence labeling; without classes they are inferred."""
        return Task("sequence", tuple(self.classes))


def _parse_spans(cell: Any) -> list[tuple[int, int, str]]:
    """Reads the spans of a cell."""
    try:
        items = json.loads(cell) if isinstance(cell, str) else list(cell)
        spans = []
        for item in items:
            if isinstance(item, Mapping):
                item = [item["start"], item["end"], item["label"]]
            start, end, name = item
            spans.append((int(start), int(end), str(name)))
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{cell!r} is not a list of spans; write them as '[[0, 3, \"NAME\"]]', and none as "
            "'[]'."
        ) from None
    return spans
