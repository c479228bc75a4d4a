"""The source of encoded rows: blocks on disk, which are read by memory maps."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from mmjax.data.dataset import Arrays, Modality, Task
from mmjax.data.kinds import Input, Target
from mmjax.data.load.stored.blocks import Block
from mmjax.data.load.tables.rows import Reader
from mmjax.data.load.targets.list_targets import choose_target_dtype
from mmjax.masks import pad_ragged
from mmjax.types import Batch

TARGET = "target-"  # begins the names of the arrays of targets that are files
_SAMPLED_MEDIA = 10_000  # files whose sizes and times are part of a fingerprint


class MediaColumn(NamedTuple):
    """A column of paths, whose cells are stored, and whose files are read when they are needed.

    Attributes:
      prefix: begins the names of its arrays: "" for a modality, `TARGET` for a task.
      name: of the modality or the task.
      spec: its kind.
    """

    prefix: str
    name: str
    spec: Input | Target


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


@dataclasses.dataclass(frozen=True)
class StoredRows:
    """A source that reads encoded rows from blocks, and decodes images and recordings.

    Attributes:
      blocks: the blocks, in the order of the rows.
      ends: number of rows up to and including each block.
      modalities: what the inputs are padded to.
      kinds: {modality: type of its numbers}.
      readers: {modality: its reader} of those whose cells name files.
      labels: the targets and label masks of all rows; no inputs.
      file_targets: {task: its kind, and the task} of those whose targets are files.
    """

    blocks: Sequence[SplitBlock]
    ends: Int[np.ndarray, " b"]
    modalities: Mapping[str, Modality]
    kinds: Mapping[str, np.dtype]
    readers: Mapping[str, Reader]
    labels: Batch
    file_targets: Mapping[str, tuple[Target, Task]] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __repr__(self) -> str:
        return f"<StoredRows: {len(self):,} examples in {len(self.blocks)} blocks>"

    def take(self, indices: np.ndarray) -> Batch:
        """Returns the examples at `indices`, in that order."""
        indices = np.asarray(indices)
        batch = Arrays(self.labels).take(indices)
        batch = batch._replace(inputs={}, present={}, lengths={})
        groups = self._group_by_block(indices)
        for m, modality in self.modalities.items():
            dtype, size = self.kinds[m], len(indices)
            if m in self.readers:
                values = self._decode_input(m, groups, size)
                batch.inputs[m] = pad_ragged(values, modality.shape, dtype)
                batch.present[m] = np.array([value is not None for value in values], bool)
                if modality.sequence:
                    lengths = [0 if value is None else len(value) for value in values]
                    batch.lengths[m] = np.array(lengths, np.int32)
            else:
                _read_arrays(batch, m, modality, dtype, groups, size)
        for t, (kind, task) in self.file_targets.items():
            batch.targets[t] = np.zeros((len(indices), *task.shape), choose_target_dtype(task))
            decoded = _decode_files(MediaColumn(TARGET, t, kind), groups, kind.read_cells)
            for position, value, place in decoded:
                if value.shape != task.shape:
                    raise ValueError(f"{place}, {t!r}: the file has changed; start again.")
                batch.targets[t][position] = value
        return batch

    def files(self) -> list[Path]:
        """Lists some of the images and recordings, spread over all rows."""
        paths: list[Path] = []
        rows = np.linspace(0, len(self) - 1, min(len(self), _SAMPLED_MEDIA)).astype(int)
        columns = [MediaColumn("", m, reader.spec) for m, reader in self.readers.items()]
        columns += [MediaColumn(TARGET, t, kind) for t, (kind, _) in self.file_targets.items()]
        for column in columns:
            for group in self._group_by_block(rows):
                for _, cells in _iterate_media_cells(group, column):
                    paths += list_media_files(column.spec, cells, group.block.folder)
        return paths

    def _group_by_block(self, indices: np.ndarray) -> list["_Group"]:
        order = np.argsort(indices, kind="stable")
        numbers = np.searchsorted(self.ends, indices[order], side="right")
        chosen, starts = np.unique(numbers, return_index=True)
        groups = []
        for number, positions in zip(chosen, np.split(order, starts[1:]), strict=True):
            first = self.ends[number - 1] if number else 0
            groups.append(_Group(self.blocks[number], positions, indices[positions] - first))
        return groups

    def _decode_input(
        self, modality: str, groups: Sequence["_Group"], size: int
    ) -> list[np.ndarray | None]:
        """Reads the images or recordings of a batch of some size."""
        values: list[np.ndarray | None] = [None] * size
        reader = self.readers[modality]
        read = functools.partial(reader.spec.read_cells, learned=reader.learned)
        for position, value, _ in _decode_files(
            MediaColumn("", modality, reader.spec), groups, read
        ):
            values[position] = value
        return values


class _Group(NamedTuple):
    """Rows of one block.

    Attributes:
      block: the block.
      positions: their positions in the batch.
      rows: their numbers in the block.
    """

    block: SplitBlock
    positions: np.ndarray
    rows: np.ndarray


def _read_arrays(
    batch: Batch,
    name: str,
    modality: Modality,
    dtype: np.dtype,
    groups: Sequence[_Group],
    size: int,
) -> None:
    """Adds a modality to a batch of some size; what is missing or padding is 0."""
    inputs = np.zeros((size, *modality.shape), dtype)
    present, lengths = np.zeros(size, bool), np.zeros(size, np.int32)
    for block, positions, rows in groups:
        whole = block.read(f"present/{name}")
        is_present = present[positions] = whole[rows]
        if not is_present.any():
            continue
        positions, rows = positions[is_present], rows[is_present]
        values = block.read(f"values/{name}")
        if not modality.sequence:
            # Missing examples take no space.
            has_index = block.has(f"index/{name}")
            inputs[positions] = values[block.read(f"index/{name}")[rows] if has_index else rows]
            continue
        sizes = block.read(f"lengths/{name}")[rows].astype(np.int64)
        starts = block.read(f"ends/{name}")[rows].astype(np.int64) - sizes
        lengths[positions] = sizes
        # All steps of all rows at once: 0, 1, ..., size - 1 for each.
        steps = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        inputs[np.repeat(positions, sizes), steps] = values[np.repeat(starts, sizes) + steps]
    batch.inputs[name], batch.present[name] = inputs, present
    if modality.sequence:
        batch.lengths[name] = lengths


def _decode_files(
    column: MediaColumn, groups: Sequence[_Group], read: Callable[[list[Any], Path], Any]
) -> Iterator[tuple[int, Any, str]]:
    """Yields the position in the batch, the content of the files, and the place of each row."""
    for group in groups:
        for i, cells in _iterate_media_cells(group, column):
            place = group.block.place(int(group.rows[i]))
            try:
                value = read(cells, group.block.folder)
            except ValueError as error:
                raise ValueError(f"{place}, {column.name!r}: {error}") from None
            yield int(group.positions[i]), value, place


def _iterate_media_cells(group: _Group, column: MediaColumn) -> Iterator[tuple[int, list[Any]]]:
    """Yields the position in the group, and the cells, of each row that has the column."""
    block, _, rows = group
    prefix, name = column.prefix, column.name
    present = block.read(f"{prefix}present/{name}")
    if not present[rows].any():
        return
    sizes = block.read(f"{prefix}lengths/{name}")[rows].tolist()
    ends = block.read(f"{prefix}ends/{name}")[rows].tolist()
    values = block.read(f"{prefix}values/{name}")
    for i, row in enumerate(rows.tolist()):
        if present[row]:
            yield i, json.loads(values[ends[i] - sizes[i] : ends[i]].tobytes())


def list_media_files(spec: Input | Target, cells: Sequence[Any], folder: Path) -> list[Path]:
    """Lists the files that the stored cells of an image or a recording name."""
    list_files = getattr(spec, "list_files", lambda cell: [str(cell)])
    return [folder / file for file in list_files(cells[0])]


def digest_media_files(blocks: Sequence[SplitBlock], columns: Sequence[MediaColumn]) -> str:
    """Hashes the sizes and the times of change of all files that the cells of blocks name."""
    state = hashlib.sha256()
    for block in blocks:
        everything = np.arange(block.count_rows())
        for column in columns:
            for _, cells in _iterate_media_cells(_Group(block, everything, everything), column):
                for path in list_media_files(column.spec, cells, block.folder):
                    status = os.stat(path) if path.is_file() else None
                    state.update(f"{status and (status.st_size, status.st_mtime_ns)};".encode())
    return state.hexdigest()
