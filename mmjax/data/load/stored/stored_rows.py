"""The source of encoded rows: blocks on disk, which are read by memory maps."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from mmjax.data.dataset import Arrays, Modality, Task
from mmjax.data.kinds import Target
from mmjax.data.load.stored.media_columns import (
    TARGET,
    MediaColumn,
    decode_files,
    iterate_media_cells,
    list_media_files,
)
from mmjax.data.load.stored.split_blocks import BlockRows, SplitBlock
from mmjax.data.load.tables.rows import Reader
from mmjax.data.load.targets.list_targets import choose_target_dtype
from mmjax.masks import pad_ragged
from mmjax.types import Batch

_SAMPLED_MEDIA = 10_000  # files whose sizes and times are part of a fingerprint


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
            decoded = decode_files(MediaColumn(TARGET, t, kind), groups, kind.read_cells)
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
                for _, cells in iterate_media_cells(group, column):
                    paths += list_media_files(column.spec, cells, group.block.folder)
        return paths

    def _group_by_block(self, indices: np.ndarray) -> list["BlockRows"]:
        order = np.argsort(indices, kind="stable")
        numbers = np.searchsorted(self.ends, indices[order], side="right")
        chosen, starts = np.unique(numbers, return_index=True)
        groups = []
        for number, positions in zip(chosen, np.split(order, starts[1:]), strict=True):
            first = self.ends[number - 1] if number else 0
            groups.append(BlockRows(self.blocks[number], positions, indices[positions] - first))
        return groups

    def _decode_input(
        self, modality: str, groups: Sequence["BlockRows"], size: int
    ) -> list[np.ndarray | None]:
        """Reads the images or recordings of a batch of some size."""
        values: list[np.ndarray | None] = [None] * size
        reader = self.readers[modality]
        read = functools.partial(reader.spec.read_cells, learned=reader.learned)
        for position, value, _ in decode_files(
            MediaColumn("", modality, reader.spec), groups, read
        ):
            values[position] = value
        return values


def _read_arrays(
    batch: Batch,
    name: str,
    modality: Modality,
    dtype: np.dtype,
    groups: Sequence[BlockRows],
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
