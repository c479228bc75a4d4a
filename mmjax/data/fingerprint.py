"""Fingerprints of data, to detect that a run is resumed with other data."""

import functools
import hashlib
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_MAX_HASHED_BYTES = 1 << 28  # of one array; of a larger one, this many in blocks spread over it
_BLOCK_BYTES = 1 << 20
_SAMPLED_ROWS = 64  # examples read from a source that lies in files, spread over it
_SAMPLED_FILES = 10_000  # files whose sizes and times are hashed, spread over the list
_PLAIN_TYPES = {type(None), bool, int, float, complex, str, bytes}
# Stored runs hold fingerprints that contain the names of classes and functions: {name: former name}
_FORMER_NAMES = {
    "StandardizedSource": "Standardised",
    "drop_at_random": "_lose",
    "drop_by_label": "_lose_by_label",
    "keep_pattern": "_keep_pattern",
}

_LATER_FIELDS = ("parts", "weights")
"""Fields of named tuples that are hashed only if they hold something, as runs were before them."""
_LATER_MAPPINGS = ("file_targets",)
"""The same of data classes."""


def compute_fingerprint(source: Any) -> str:
    """Computes the SHA-256 of a split's source: of what it holds, and how it reads the rest.

    Arrays in memory are hashed whole, up to 256 MiB per array. Of files, the sizes and the times
    of change are hashed, and of any other kind of source a few of its examples. Folders are not
    hashed: data may be moved if the times are preserved.

    Example:
      >>> compute_fingerprint(np.arange(3))[:8] == compute_fingerprint(np.arange(3))[:8]
      True
    """
    state = hashlib.sha256()
    _hash_value(state, source, set())
    return state.hexdigest()


def _hash_value(state: Any, value: Any, inside: set[int]) -> None:
    """Hashes a value and what it holds; `inside` has the ids of the objects that contain it."""
    if type(value) in _PLAIN_TYPES or isinstance(value, range | np.generic | np.dtype | type):
        state.update(f"{value!r};".encode("utf-8", "backslashreplace"))
    elif isinstance(value, np.ndarray):
        _hash_array(state, value)
    elif isinstance(value, Path) or id(value) in inside:
        state.update(b"-;")
    else:
        state.update(f"{_stable_name(type(value))}:".encode())
        _hash_parts(state, value, inside | {id(value)})


def _hash_parts(state: Any, value: Any, inside: set[int]) -> None:
    """Hashes what a container, a call or an object holds."""
    files = getattr(value, "files", None)
    if isinstance(value, Mapping):
        parts: Iterable[Any] = itertools.chain.from_iterable(value.items())
    elif isinstance(value, set | frozenset):
        parts = sorted(value, key=repr)
    elif isinstance(value, tuple | list):
        parts = value
        if names := getattr(value, "_fields", ()):
            parts = [v for n, v in zip(names, value, strict=True) if n not in _LATER_FIELDS or v]
        if set(map(type, value)) <= _PLAIN_TYPES:  # cells of a table: many values without structure
            return state.update(f"{list(value)!r};".encode("utf-8", "backslashreplace"))
    elif isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
    elif hasattr(value, "__dataclass_fields__"):
        # TFDS declares fields that it never sets.
        named = [(name, getattr(value, name, None)) for name in value.__dataclass_fields__]
        parts = [part for name, part in named if name not in _LATER_MAPPINGS or part]
    elif callable(value):
        parts = (_stable_name(value),)
    else:
        parts = _sample_rows(value)
    if callable(files):
        _hash_files(state, files())
    for part in parts:
        _hash_value(state, part, inside)


def _stable_name(value: Any) -> str:
    """Returns the name of a class or function, or the name that it had in stored fingerprints."""
    name = getattr(value, "__qualname__", "")
    return _FORMER_NAMES.get(name, name)


def _hash_array(state: Any, array: np.ndarray) -> None:
    state.update(f"{array.dtype} {array.shape};".encode())
    if array.dtype.hasobject:
        return state.update(repr(array.tolist()).encode("utf-8", "backslashreplace"))
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if content.nbytes <= _MAX_HASHED_BYTES:
        return state.update(content)
    starts = np.linspace(0, content.nbytes - _BLOCK_BYTES, _MAX_HASHED_BYTES // _BLOCK_BYTES)
    for start in starts.astype(int):
        state.update(content[start : start + _BLOCK_BYTES])


def _hash_files(state: Any, paths: Sequence[Path]) -> None:
    state.update(f"{len(paths)} files;".encode())
    for path in paths[:: -(-len(paths) // _SAMPLED_FILES) or 1]:
        try:
            status = os.stat(path)
            state.update(f"{status.st_size} {status.st_mtime_ns};".encode())
        except OSError:
            state.update(b"missing;")


def _sample_rows(source: Any) -> list[Any]:
    """Reads a few examples of a source; returns [] if the object is not one."""
    try:
        count = len(source)
        rows = np.linspace(0, count - 1, min(count, _SAMPLED_ROWS)).astype(int)
        if hasattr(source, "take"):
            return [count, source.take(rows)]
        return [count, *(source[int(row)] for row in rows)]
    except Exception:  # an unknown object may raise anything, which must not stop a run
        return []
