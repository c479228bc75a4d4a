"""Checks of one array of a batch: its shape, its type and its values."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax import dtypes


class InvalidDataError(Exception):
    """A message that names what is wrong, but neither the data set nor the split."""


def check_known(kind: str, key: str, *parts: Mapping[str, np.ndarray]) -> None:
    """Refuses a modality or task that a part of the batch lacks."""
    if any(key not in part for part in parts):
        known = ", ".join(sorted(parts[0])) or "none"
        raise InvalidDataError(f"it has no {kind} {key!r}; it has {known}.")


def check_mask(what: str, mask: np.ndarray, examples: int) -> None:
    """Refuses anything but one boolean per example."""
    check_shape(what, mask, (examples,))
    if mask.dtype != bool:
        raise InvalidDataError(f"{what} has type {mask.dtype}; it must be bool.")


def check_shape(what: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuses an array of another shape."""
    if array.shape != shape:
        raise InvalidDataError(f"{what} has shape {array.shape}; it must be {shape}.")


def check_integers(what: str, array: np.ndarray) -> None:
    """Refuses an array whose type is not an integer."""
    if not np.issubdtype(array.dtype, np.integer):
        raise InvalidDataError(f"{what} has type {array.dtype}; it must be integer.")


def check_numeric(what: str, array: np.ndarray) -> None:
    """Refuses types that JAX does not take for numbers, or whose bytes it would misread."""
    kind = array.dtype.kind
    # bfloat16 and the 8-bit floats are of NumPy's kind V, as structured types are.
    if kind not in "biuf" and not dtypes.issubdtype(array.dtype, np.floating):
        raise InvalidDataError(f"{what} has type {array.dtype}; it must be real numbers.")
    if not array.dtype.isnative:
        raise InvalidDataError(
            f"{what} has type {array.dtype.str}; convert it to the machine's byte order, for "
            "example by astype(x.dtype.newbyteorder('='))."
        )


def check_finite(what: str, array: np.ndarray, where: np.ndarray) -> None:
    """Refuses NaN and infinity where `where` ([b] or [b time]) is true."""
    if not np.issubdtype(array.dtype, np.inexact):
        return
    # A finite sum needs no second look. A sum that is not finite may still come from padding, or
    # from finite numbers that overflow.
    with np.errstate(all="ignore"):
        if np.isfinite(array.sum()):
            return
    row, value = _find_first_bad(~np.isfinite(array), array, where)
    if value is not None:
        raise InvalidDataError(f"{what} {value} in row {row}; every number must be finite.")


def check_fits_32_bits(what: str, array: np.ndarray, where: np.ndarray) -> None:
    """Refuses numbers that JAX, which computes in 32 bits, would wrap or make infinite."""
    is_wide = array.dtype in (np.int64, np.uint64, np.float64, np.longdouble)
    if not is_wide or not array.size:
        return
    limits: Any = np.finfo(np.float32) if array.dtype.kind == "f" else np.iinfo(np.int32)
    # The minimum of NaN, which padding may hold, is NaN: such an array gets the second look.
    if limits.min <= array.min() and array.max() <= limits.max:
        return
    row, value = _find_first_bad((array < limits.min) | (array > limits.max), array, where)
    if value is not None:
        raise InvalidDataError(
            f"{what} has {value} in row {row}, which is beyond 32 bits; rescale or renumber it."
        )


def _find_first_bad(bad: np.ndarray, array: np.ndarray, where: np.ndarray) -> tuple[int, Any]:
    """Returns the row and the value of the first bad number where `where` is true, or (0, None)."""
    bad = bad & where.reshape(*where.shape, *(1,) * (array.ndim - where.ndim))
    if not bad.any():
        return 0, None
    row = int(np.argwhere(bad)[0][0])
    return row, array[row][bad[row]][0]


def find_first_row(bad: np.ndarray) -> int:
    """Returns the first row that is true."""
    return int(np.flatnonzero(bad)[0])
