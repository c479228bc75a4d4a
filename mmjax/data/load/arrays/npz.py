"""Reading of NumPy's .npz files without unpickling and within a limit of size."""

import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.limits import (
    MAX_BYTES,
    MAX_DEFLATE_RATIO,
    LimitError,
    check_declared_size,
    format_size,
)

_MEMBER_SUFFIX = ".npy"
_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(
    path: str | os.PathLike[str],
    names: Collection[str] | None = None,
    *,
    max_bytes: int = MAX_BYTES,
) -> dict[str, np.ndarray]:
    """Reads named arrays of an .npz file.

    The sizes that the arrays declare are compared with the zip directory and with `max_bytes`
    before memory is allocated for them.

    Args:
      path: the file.
      names: the arrays; None: all.
      max_bytes: the largest total size of these arrays.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming the file and the array, if it is damaged, absent, larger than the limit,
        or of Python objects, which only unpickling (running code of the file) could read.

    Example:
      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "a.npz")
      ...     np.savez(path, x=np.arange(3))
      ...     read_npz(path)["x"].tolist()
      [0, 1, 2]
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"File {path} does not exist.")
    try:
        if _is_single_array(path):
            raise ValueError("it is a single array, not an .npz file")
        with zipfile.ZipFile(path) as archive:
            return _read_members(archive, path, names, max_bytes)
    except LimitError:
        raise
    # Zip files that are damaged, encrypted, or compressed in unknown ways raise all of these.
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: {str(error).rstrip('.')}.") from None


def _is_single_array(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) == np.lib.format.MAGIC_PREFIX


def _read_members(
    archive: zipfile.ZipFile, path: Path, names: Collection[str] | None, max_bytes: int
) -> dict[str, np.ndarray]:
    """Reads arrays after checking all of their headers."""
    members = {
        info.filename.removesuffix(_MEMBER_SUFFIX): info
        for info in archive.infolist()
        if info.filename.endswith(_MEMBER_SUFFIX)
    }
    chosen = list(members if names is None else names)
    total = 0
    for name in chosen:
        if name not in members:
            raise ValueError(f"it has no array {name!r}, only {sorted(members)}")
        total += _check_declared_bytes(archive, members[name], name)
    check_declared_size(path, total, max_bytes, "max_bytes")
    arrays = {}
    for name in chosen:
        with archive.open(members[name]) as member:
            arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
    return arrays


def _check_declared_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> int:
    """Returns the size that the header of an array declares, which must match the zip directory.

    Raises:
      ValueError: naming the array.
    """
    with archive.open(info) as member:
        shape, dtype = _read_header(member, name)
        start = member.tell()
    if dtype.hasobject:
        raise ValueError(f"{name!r} holds Python objects, which are not read; store numbers")
    if any(size < 0 for size in shape):
        raise ValueError(f"{name!r} has the shape {shape}; no size may be negative")
    size = dtype.itemsize * math.prod(shape)
    if start + size != info.file_size:
        raise ValueError(
            f"{name!r} declares {shape} of {dtype}, which is {format_size(size)}, but the zip "
            f"directory has {format_size(max(0, info.file_size - start))} for it"
        )
    ratios = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: MAX_DEFLATE_RATIO}
    ratio = ratios.get(info.compress_type)
    # The 64 bytes are for the overhead of small streams.
    if ratio and info.file_size > ratio * (info.compress_size + 64):
        raise ValueError(
            f"{name!r} declares {format_size(info.file_size)}, to which its "
            f"{format_size(info.compress_size)} cannot unpack"
        )
    # An axis of size 0 makes an array of no bytes, but loops over its rows must be short too.
    return max(1, dtype.itemsize) * math.prod(max(1, size) for size in shape)


def _read_header(member: Any, name: str) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(member)
    if version not in _HEADER_READERS:
        raise ValueError(f"{name!r} is of format {version}; known are {sorted(_HEADER_READERS)}")
    try:
        shape, _, dtype = _HEADER_READERS[version](member)
    # The parser gives up on deep nesting by these, and from Python 3.12 on NumPy's tokenizer too.
    except (RecursionError, MemoryError, tokenize.TokenError):
        raise ValueError(f"{name!r} has a header that cannot be read") from None
    return shape, dtype
