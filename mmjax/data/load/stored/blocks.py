"""Blocks: files with several arrays, of which rows are read by memory maps."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax import files

_ALIGNMENT = 64  # bytes
_OPEN_BLOCKS = 256  # memory maps at once; each takes an address range, but memory only while read


class ArrayPlace(NamedTuple):
    """Where an array lies in its block.

    Attributes:
      dtype: its type.
      shape: its shape.
      offset: number of bytes before it.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int


class Block(NamedTuple):
    """A file of arrays.

    Attributes:
      path: the file.
      size: its size in bytes.
      arrays: {name: place}.
    """

    path: Path
    size: int
    arrays: Mapping[str, ArrayPlace]

    def read(self, name: str) -> np.ndarray:
        """Returns an array as a view of a memory map."""
        dtype, shape, offset = self.arrays[name]
        content = _map_file(self.path)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return content[offset : offset + size].view(dtype).reshape(shape)

    def is_complete(self) -> bool:
        """Checks whether the file is there in full."""
        return self.path.is_file() and self.path.stat().st_size == self.size


@functools.lru_cache(maxsize=_OPEN_BLOCKS)
def _map_file(path: Path) -> np.ndarray:
    return np.asarray(np.memmap(path, np.uint8, "r"))


def write_block(path: Path, arrays: Mapping[str, np.ndarray]) -> Block:
    """Writes arrays into one file, atomically; numbers are narrowed where that loses nothing.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     block = write_block(Path(folder, "block"), {"x": np.arange(3)})
      ...     block.read("x").tolist(), block.arrays["x"].dtype
      ([0, 1, 2], 'uint8')
    """
    places: dict[str, ArrayPlace] = {}
    offset = 0
    with files.replace_atomically(path) as draft, draft.open("wb") as file:
        for name, wide in arrays.items():
            array = np.ascontiguousarray(_narrow(wide))
            offset += file.write(bytes(-offset % _ALIGNMENT))
            places[name] = ArrayPlace(str(array.dtype), array.shape, offset)
            offset += file.write(array.reshape(-1).view(np.uint8).data)
        if not offset:
            offset += file.write(b"\0")  # an empty file cannot be mapped
    return Block(path, offset, places)


def _narrow(array: np.ndarray) -> np.ndarray:
    """Converts to the smallest type that holds exactly the same numbers."""
    if array.dtype.kind in "iu" and array.size and array.min() >= 0:
        return array.astype(np.min_scalar_type(int(array.max())))
    if array.dtype == np.float64:
        with np.errstate(over="ignore"):
            single = array.astype(np.float32)
        if np.array_equal(single.astype(np.float64), array, equal_nan=True):
            return single
    return array


def convert_block(block: Block) -> dict[str, Any]:
    """Converts the description of a block to JSON."""
    return {"path": block.path.name, "size": block.size, "arrays": block.arrays}


def parse_block(stored: Mapping[str, Any], folder: Path) -> Block:
    """Returns the block that `convert_block` converted.

    Args:
      stored: the result.
      folder: where the file is.
    """
    arrays = {
        name: ArrayPlace(dtype, tuple(shape), offset)
        for name, (dtype, shape, offset) in stored["arrays"].items()
    }
    return Block(folder / stored["path"], stored["size"], arrays)
