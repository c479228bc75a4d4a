"""Columns of paths in blocks: their cells are stored, and their files are read when needed."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.kinds import Input, Target
from mmjax.data.load.stored.split_blocks import BlockRows, SplitBlock

TARGET = "target-"  # begins the names of the arrays of targets that are files


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


def decode_files(
    column: MediaColumn, groups: Sequence[BlockRows], read: Callable[[list[Any], Path], Any]
) -> Iterator[tuple[int, Any, str]]:
    """Yields the position in the batch, the content of the files, and the place of each row."""
    for group in groups:
        for i, cells in iterate_media_cells(group, column):
            place = group.block.place(int(group.rows[i]))
            try:
                value = read(cells, group.block.folder)
            except ValueError as error:
                raise ValueError(f"{place}, {column.name!r}: {error}") from None
            yield int(group.positions[i]), value, place


def iterate_media_cells(group: BlockRows, column: MediaColumn) -> Iterator[tuple[int, list[Any]]]:
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
            for _, cells in iterate_media_cells(BlockRows(block, everything, everything), column):
                for path in list_media_files(column.spec, cells, block.folder):
                    status = os.stat(path) if path.is_file() else None
                    state.update(f"{status and (status.st_size, status.st_mtime_ns)};".encode())
    return state.hexdigest()
