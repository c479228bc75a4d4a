"""The idx format of MNIST and similar data sets: one array of any shape, often gzipped.

Two zero bytes, one byte for the type, one for the number of dimensions; then the size of each
dimension and the values in row-major order, all big-endian (LeCun, Cortes and Burges, "The MNIST
database").
"""

import gzip
import math
import os
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from jaxtyping import Num

from mmjax.data.limits import MAX_BYTES, check_declared_size

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"  # the first bytes of a gzip file, whose name is not looked at
_CHUNK_BYTES = 1 << 20


def read_idx(
    path: str | os.PathLike[str],
    *,
    shape: tuple[int | None, ...] | None = None,
    max_bytes: int = MAX_BYTES,
) -> Num[np.ndarray, "..."]:
    """Reads an idx file, plain or gzipped, into an array of the machine's byte order.

    No more is unzipped than the header declares.

    Args:
      path: the file.
      shape: required shape; None stands for any size, as in (None, 28, 28).
      max_bytes: maximum size of the array.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming the file, the offset (in bytes, of the unzipped data) and what is wrong
        there: not idx, an unknown type, truncated or damaged data, bytes after the end, another
        shape than the required one, or more bytes than `max_bytes`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"File {path} does not exist.")
    try:
        with path.open("rb") as file:
            is_zipped = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            if not is_zipped:
                return _parse_array(file, path, shape, max_bytes)
            with gzip.GzipFile(fileobj=file) as stream:
                return _parse_array(stream, path, shape, max_bytes)
    except _IdxError as error:
        raise ValueError(f"{path}: {error}") from None


class _IdxError(Exception):
    """An error whose message does not name the file yet."""


def _parse_array(
    file: BufferedIOBase, path: Path, shape: tuple[int | None, ...] | None, max_bytes: int
) -> Num[np.ndarray, "..."]:
    """Reads the header and the array."""
    data = bytearray()
    kind, sizes = _read_header(file, data)
    if shape is not None and not _has_shape(sizes, shape):
        required = " x ".join("any" if size is None else str(size) for size in shape)
        raise _IdxError(f"at offset 4 the shape is {_format_shape(sizes)}; it must be {required}.")
    start, size = len(data), math.prod(sizes) * kind.itemsize
    check_declared_size(path, size, max_bytes, "max_bytes")
    end = start + size
    _read_until(file, data, end + 1)  # one more, to see whether the file ends there
    if len(data) < end:
        raise _IdxError(
            f"it is truncated at offset {len(data)}; {_format_shape(sizes)} values of "
            f"{kind.itemsize} bytes end at offset {end}."
        )
    if len(data) > end:
        raise _IdxError(f"more bytes follow the end of the array, offset {end}.")
    try:
        values = np.frombuffer(data, kind, math.prod(sizes), start).reshape(sizes)
    except ValueError as error:  # idx allows more dimensions than NumPy
        raise _IdxError(f"at offset 4 the shape is {_format_shape(sizes)}: {error}.") from None
    return values.astype(kind.newbyteorder("="))


def _read_header(file: BufferedIOBase, data: bytearray) -> tuple[np.dtype, tuple[int, ...]]:
    """Reads the type of the values and the size of each dimension."""
    _read_until(file, data, 4)
    if len(data) < 4:
        raise _IdxError(f"it is truncated at offset {len(data)}; an idx file starts with 4 bytes.")
    if data[:2] != b"\0\0":
        raise _IdxError(f"at offset 0 are the bytes {data[:2].hex(' ')}; idx starts with 00 00.")
    if data[2] not in _TYPES:
        known = ", ".join(f"{code:02x}" for code in _TYPES)
        raise _IdxError(f"at offset 2 the type is {data[2]:02x}; idx knows {known}.")
    start = 4 + 4 * data[3]
    _read_until(file, data, start)
    if len(data) < start:
        raise _IdxError(
            f"it is truncated at offset {len(data)}; the sizes of {data[3]} dimensions end at "
            f"offset {start}."
        )
    return np.dtype(_TYPES[data[2]]), struct.unpack_from(f">{data[3]}I", data, 4)


def _read_until(file: BufferedIOBase, data: bytearray, end: int) -> None:
    """Reads until `data` has `end` bytes, or to the end of the file."""
    try:
        while len(data) < end and (chunk := file.read1(min(_CHUNK_BYTES, end - len(data)))):
            data += chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _IdxError(f"its gzip data are damaged after offset {len(data)}: {error}.") from None


def _has_shape(sizes: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    """Checks sizes against a required shape, in which None stands for any size."""
    return len(sizes) == len(shape) and all(
        required in (None, size) for size, required in zip(sizes, shape, strict=True)
    )


def _format_shape(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes)) or "scalar"
