"""Decoding that several kinds of columns share."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

_STORED_DTYPES = (np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.int32))
BYTE_TOKEN_NAMES = ("padding", *(f"{byte:#04x}" for byte in range(256)))


class UnreadableError(ValueError):
    """A file or a value that is missing, damaged, or of another format."""


def convert_to_32_bits(array: np.ndarray, what: str) -> np.ndarray:
    """Converts numbers to at most 32 bits: integers except for uint8 to int32, others to float32.

    Raises:
      ValueError: if a number is beyond 32 bits; the message begins with `what`.

    Example:
      >>> convert_to_32_bits(np.array([1, 2]), "x").dtype
      dtype('int32')
    """
    if array.dtype in _STORED_DTYPES:
        return array
    floating = array.dtype.kind == "f"
    with np.errstate(over="ignore"):
        converted = array.astype(np.float32 if floating else np.int32, copy=False)
    if array.dtype.itemsize >= 4:
        # A number that overflows becomes infinite, or wraps around.
        overflows = np.isinf(converted) & np.isfinite(array) if floating else converted != array
        if overflows.any():
            sort = "numbers" if floating else "whole numbers"
            raise ValueError(
                f"{what} has {sort} beyond 32 bits, such as {array[overflows][0]}; rescale or "
                "renumber them."
            )
    return converted


def convert_tensor(value: Any) -> np.ndarray | None:
    """Converts a TFDS tensor to uint8, int32, float32 or float64; None if it is empty or all NaN.

    Numbers are checked to fit into 32 bits, but float64 stays until it has been standardized.
    """
    array = np.atleast_1d(np.asarray(value))
    if array.size == 0 or (array.dtype.kind == "f" and np.isnan(array).all()):
        return None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"it is of type {array.dtype}, not numbers.")
    converted = convert_to_32_bits(array, "it")
    is_wide = array.dtype.kind == "f" and array.dtype.itemsize > 4
    return array.astype(np.float64, copy=False) if is_wide else converted


def decode_utf8(text: str | bytes) -> str:
    """Decodes bytes.

    Raises:
      UnreadableError: naming the offset of what is not UTF-8.
    """
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableError(
            f"the text is not UTF-8: byte {text[error.start]:#04x} at offset {error.start}."
        ) from None


def list_suffixes(cells: Iterable[Any]) -> set[str]:
    """Lists the endings of file names, in lower case."""
    return {Path(str(cell)).suffix.lower() for cell in cells}


def check_file_exists(path: Path) -> None:
    """Raises UnreadableError if there is no such file."""
    if not path.is_file():
        raise UnreadableError(f"file {path} does not exist.")
