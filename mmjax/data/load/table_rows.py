"""The rows of a table as examples: cells are turned into arrays, and files read, when wanted."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.load.column_kinds import Audio, Image, Input, Label, Labels, Numbers, Target, Text
from mmjax.data.load.decode import (
    UnreadableError,
    frames,
    image,
    recording,
    tokens,
    vocabulary,
)
from mmjax.data.load.labels import class_name
from mmjax.data.load.scan_split import Example
from mmjax.data.load.table_files import Table, number

TRUTH = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


@dataclasses.dataclass(frozen=True)
class Reader:
    """How the cells of one modality become an array.

    Attributes:
      spec: what they are.
      words: tokens of the known words, for text by words.
      rate: the sample rate that all recordings must have; None: any, for they are resampled.
    """

    spec: Input
    words: Mapping[str, int] = dataclasses.field(default_factory=dict)
    rate: int | None = None

    def __call__(self, table: Table, row: int) -> np.ndarray | None:
        """The array of a row; None if its cells are empty."""
        spec = self.spec
        if isinstance(spec, Numbers):
            return _vector(_several(spec.columns, table, row))
        cell = table.columns[spec.column][row]
        if cell is None:
            return None
        if isinstance(spec, Text):
            return tokens(str(cell), spec, self.words)
        path = table.path.parent / str(cell)
        if isinstance(spec, Image):
            return image(path, spec)
        samples, rate = recording(path, spec.max_bytes)
        if self.rate not in (None, rate):
            raise ValueError(
                f"{path} has {rate} samples a second, others {self.rate}; give the "
                f"`Audio` a sample_rate to resample them."
            )
        return frames(samples, rate, spec)


def plain(spec: Input) -> Reader:
    """A reader that needs nothing of the training split."""
    return Reader(spec)


def spelled(spec: Text, texts: Iterable[str]) -> Reader:
    """A reader of text by words, with the vocabulary of the training texts."""
    return Reader(spec, words=vocabulary(texts, spec.vocabulary))


def heard(spec: Audio, folder: Path, files: Sequence[str]) -> Reader:
    """A reader of recordings that must all have the sample rate of the first readable one."""
    for file in files:
        try:
            return Reader(spec, rate=recording(folder / file, spec.max_bytes)[1])
        except UnreadableError:
            continue
    return Reader(spec)


@dataclasses.dataclass(frozen=True)
class TableRows:
    """Some rows of a table."""

    table: Table
    rows: Sequence[int]
    readers: Mapping[str, Reader]
    targets: Mapping[str, Target]

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self, rows: Sequence[int]) -> list[Example]:
        """The examples of those rows, the files of which are read now."""
        return [self._example(self.rows[row]) for row in rows]

    def files(self) -> list[Path]:
        """Lists the images and recordings that the rows name."""
        specs = [r.spec for r in self.readers.values() if isinstance(r.spec, Image | Audio)]
        cells = [self.table.columns[s.column][row] for s in specs for row in self.rows]
        return [self.table.path.parent / str(cell) for cell in cells if cell is not None]

    def place(self, row: int) -> str:
        """The file, and the line or row in it."""
        return self.table.place(self.rows[row])

    def _example(self, row: int) -> Example:
        what = ""
        try:
            inputs = {}
            for what, reader in self.readers.items():
                inputs[what] = reader(self.table, row)
            targets = {}
            for what, spec in self.targets.items():
                targets[what] = _target(spec, self.table, row)
        except ValueError as error:
            kind = UnreadableError if isinstance(error, UnreadableError) else ValueError
            raise kind(f"{self.table.place(row)}, {what!r}: {error}") from None
        return Example(inputs, targets)


def _several(columns: str | tuple[str, ...], table: Table, row: int) -> list[Any] | None:
    """The cells of several columns; None if all are empty.

    Raises:
      ValueError: if only some are.
    """
    names = (columns,) if isinstance(columns, str) else columns
    cells = [table.columns[name][row] for name in names]
    empty = [name for name, cell in zip(names, cells, strict=True) if cell is None]
    if empty and len(empty) < len(names):
        raise ValueError(
            f"column {empty[0]!r} is empty and others are not; fill it, or make it a modality or "
            "task of its own."
        )
    return None if empty else cells


def _vector(cells: list[Any] | None) -> np.ndarray | None:
    if cells is None:
        return None
    flat = [part for cell in cells for part in (cell if isinstance(cell, list) else [cell])]
    return np.array([number(part) for part in flat], np.float32)


def _target(spec: Target, table: Table, row: int) -> Any:
    if isinstance(spec, Labels):
        cells = _several(spec.columns, table, row)
        return None if cells is None else [_truth(cell) for cell in cells]
    cell = table.columns[spec.column][row]
    if cell is None:
        return None
    if not isinstance(spec, Label):
        return number(cell)
    try:
        return class_name(cell)
    except ValueError as error:
        raise ValueError(f"it is {error}") from None


def _truth(cell: Any) -> int:
    value = TRUTH.get(str(cell).lower())
    if value is None:
        raise ValueError(f"{cell!r} is neither 0 nor 1.")
    return value
