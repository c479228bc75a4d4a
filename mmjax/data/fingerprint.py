"""Fingerprints of data, to notice that a run would go on with other data than it began with."""

import functools
import hashlib
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LIMIT = 1 << 28
"""Bytes of an array that are hashed whole; of a larger one as many, spread over it in blocks."""
BLOCK = 1 << 20
ROWS = 64
"""Examples that are read of a source that lies in files, spread over it."""
FILES = 10_000
"""Files whose sizes and times are looked at, spread over the list."""
PLAIN = {type(None), bool, int, float, complex, str, bytes}


def fingerprint(source: Any) -> str:
    """Computes a SHA-256 of a split's source: of what it holds, and how it reads the rest.

    What lies in memory is hashed whole, up to `LIMIT` bytes per array. Of files the sizes and the
    times of change count, and of any other kind of source a few of its examples. Folders do not
    count: data may be moved if the times are kept.
    """
    state = hashlib.sha256()
    _add(state, source, set())
    return state.hexdigest()


def _add(state: Any, value: Any, inside: set[int]) -> None:
    """Adds a value and what it holds."""
    if type(value) in PLAIN or isinstance(value, range | np.generic | np.dtype | type):
        state.update(f"{value!r};".encode("utf-8", "backslashreplace"))
    elif isinstance(value, np.ndarray):
        _add_array(state, value)
    elif isinstance(value, Path) or id(value) in inside:
        state.update(b"-;")
    else:
        state.update(f"{type(value).__qualname__}:".encode())
        _add_parts(state, value, inside | {id(value)})


def _add_parts(state: Any, value: Any, inside: set[int]) -> None:
    """Adds what a container, a call or an object holds."""
    files = getattr(value, "files", None)
    if isinstance(value, Mapping):
        parts: Iterable[Any] = itertools.chain.from_iterable(value.items())
    elif isinstance(value, set | frozenset):
        parts = sorted(value, key=repr)
    elif isinstance(value, tuple | list):
        parts = value
        if set(map(type, value)) <= PLAIN:  # cells of a table: many, and of no structure
            return state.update(f"{list(value)!r};".encode("utf-8", "backslashreplace"))
    elif isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
    elif hasattr(value, "__dataclass_fields__"):
        parts = (getattr(value, name) for name in value.__dataclass_fields__)
    elif callable(value):
        parts = (getattr(value, "__qualname__", ""),)
    else:
        parts = _rows(value)
    if callable(files):
        _add_files(state, files())
    for part in parts:
        _add(state, part, inside)


def _add_array(state: Any, array: np.ndarray) -> None:
    state.update(f"{array.dtype} {array.shape};".encode())
    if array.dtype.hasobject:
        return state.update(repr(array.tolist()).encode("utf-8", "backslashreplace"))
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if content.nbytes <= LIMIT:
        return state.update(content)
    for start in np.linspace(0, content.nbytes - BLOCK, LIMIT // BLOCK).astype(int):
        state.update(content[start : start + BLOCK])


def _add_files(state: Any, paths: Sequence[Path]) -> None:
    state.update(f"{len(paths)} files;".encode())
    for path in paths[:: -(-len(paths) // FILES) or 1]:
        try:
            found = os.stat(path)
            state.update(f"{found.st_size} {found.st_mtime_ns};".encode())
        except OSError:
            state.update(b"missing;")


def _rows(source: Any) -> list[Any]:
    """Reads a few examples of a source, if it is one; or else what identifies it is its type."""
    try:
        count = len(source)
        rows = np.linspace(0, count - 1, min(count, ROWS)).astype(int)
        if hasattr(source, "take"):
            return [count, source.take(rows)]
        return [count, *(source[int(row)] for row in rows)]
    except Exception:  # whatever an unknown object does, it is no reason to stop a run
        return []
