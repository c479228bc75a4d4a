"""Results of passes over memory maps, kept so that a later start does not read the maps again."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import files
from mmjax.config import trust
from mmjax.data.describe.announce import announce_once
from mmjax.data.load.arrays.npz import read_npz
from mmjax.data.mapped_arrays import is_memory_map

_VERSION = 1  # of what the passes compute
_SAMPLED_ROWS = 64  # hashed, spread over the array


class MapScans:
    """Computes results from arrays; those from read-only memory maps are stored in a folder.

    A result is valid for the same part of the same file (path, size and time of change, type, shape
    and position of the array in it) whose sampled rows are the same, and for equal settings. Maps
    that may be written to, and arrays in memory, are always read.

    Args:
      folder: where results are stored; None: nowhere.

    Example:
      >>> MapScans(None).recall(np.arange(3), "size", (), lambda: [np.array(3)])
      [array(3)]
    """

    def __init__(self, folder: str | os.PathLike[str] | None):
        # A stored run of somebody else does not choose where files are written.
        is_used = folder is not None and trust.may_prepare_data()
        self._folder = Path(folder).expanduser() if folder is not None and is_used else None

    def recall(
        self,
        array: np.ndarray,
        what: str,
        settings: Sequence[Any],
        compute: Callable[[], Sequence[np.ndarray]],
    ) -> list[np.ndarray]:
        """Returns what a function computes from an array, or what it has computed before.

        Args:
          array: the array.
          what: name of the result.
          settings: all else that the result depends on; arrays count by content.
          compute: computes it; nothing is stored if it raises an error.
        """
        if self._folder is None or not is_read_only_map(array):
            return list(compute())
        key = _hash_facts([_VERSION, what, *_identify(array), *settings])
        path = self._folder / f"map-{key}.npz"
        if path.is_file():
            try:
                # Stored under the index in the list.
                found = read_npz(path, max_bytes=sys.maxsize)
                announce_once(f"{array.filename}: an earlier pass is in the cache")  # type: ignore[attr-defined]
                return [found[name] for name in sorted(found, key=int)]
            except ValueError:
                files.set_aside_damaged(path)
        results = [np.asarray(result) for result in compute()]
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replace_atomically(path) as draft, draft.open("wb") as file:
            numbered: Any = {str(i): result for i, result in enumerate(results)}
            np.savez(file, **numbered)
        return results


def is_read_only_map(array: Any) -> bool:
    """Checks whether an array is a memory map that the program cannot write to."""
    # A private map (mode "c") differs from its file once somebody has written to it.
    return (
        isinstance(array, np.memmap)
        and is_memory_map(array)
        and array.mode == "r"
        and array.filename is not None
    )


def check_has_maps(parts: Iterable[Mapping[str, Any]], inputs: Sequence[str]) -> None:
    """Refuses inputs none of which is a read-only memory map.

    Raises:
      ValueError: saying how to open one.
    """
    arrays = [part[m] for part in parts for m in inputs]
    if not any(map(is_read_only_map, arrays)):
        raise ValueError(
            "scan_cache is for memory maps, but no input is one that is read-only; open it by "
            "np.load('x.npy', mmap_mode='r'), or leave scan_cache out."
        )


def _identify(array: Any) -> list[Any]:
    """Lists what identifies the content of a memory map without reading all of it."""
    status = os.stat(array.filename)
    # Slices keep the offset of the whole map, so the position in the file is that of the memory.
    start = np.frombuffer(array._mmap, np.uint8).__array_interface__["data"][0]
    position = array.offset, array.__array_interface__["data"][0] - start
    rows = np.unique(np.linspace(0, max(0, len(array) - 1), _SAMPLED_ROWS).astype(int))
    # A file that was replaced while it is mapped has a new time, but the map has the old content.
    sample = np.asarray(array[rows] if len(array) else array)
    place = str(Path(array.filename).resolve())
    layout = (array.dtype.str, array.shape, array.strides)
    return [place, status.st_size, status.st_mtime_ns, *layout, *position, sample]


def _hash_facts(facts: Sequence[Any]) -> str:
    state = hashlib.sha256()
    for fact in facts:
        if isinstance(fact, np.ndarray):
            state.update(f"{fact.dtype} {fact.shape};".encode())
            state.update(np.ascontiguousarray(fact).view(np.uint8).data if fact.size else b"")
        else:
            state.update(f"{fact!r};".encode())
    return state.hexdigest()[:32]
