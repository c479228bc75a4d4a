"""Comparison of a modality's value ranges between splits, which must use one scale of numbers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

_MAX_EXAMPLES = 1024  # examples measured per split, spread over it
_MAX_VALUES = 1 << 22  # numbers in them: a thousand photographs would take a gigabyte
# Images are on different scales if one split stays within 0 to 1 and another one reaches 64.
_UNIT_MAXIMUM, _PIXEL_MINIMUM = 1.0, 64.0


class ValueRange(NamedTuple):
    """The value range of a modality in one split.

    Attributes:
      kind: type of the values.
      low: the smallest value.
      high: the largest value.
      axes: number of axes of one example.
    """

    kind: np.dtype
    low: float
    high: float
    axes: int

    def __str__(self) -> str:
        return f"{self.kind} from {self.low:.4g} to {self.high:.4g}"


def measure_value_range(
    rows: np.ndarray | Sequence[np.ndarray], present: Bool[np.ndarray, " n"]
) -> ValueRange | None:
    """Measures the finite values of at most 1024 examples; returns None if there are none.

    Args:
      rows: [n, ...], or one array per example.
      present: which of the examples have the modality.

    Example:
      >>> str(measure_value_range(np.array([[0.0, 0.5], [1.0, np.nan]]), np.array([True, True])))
      'float64 from 0 to 1'
    """
    present_rows = np.flatnonzero(present)
    if not len(present_rows):
        return None
    first = rows[present_rows[0]]
    count = min(_MAX_EXAMPLES, len(present_rows), max(1, _MAX_VALUES // max(1, first.size)))
    chosen = present_rows[np.linspace(0, len(present_rows) - 1, count).astype(int)]
    # The arrays of a list may differ in length, so they are not stacked.
    parts = [rows[chosen]] if isinstance(rows, np.ndarray) else [rows[i] for i in chosen]
    parts = [part for part in parts if part.size]
    finite = [part[np.isfinite(part)] for part in parts]
    finite = [part for part in finite if part.size]
    if not finite:
        return None
    low, high = min(part.min() for part in finite), max(part.max() for part in finite)
    axes = parts[0].ndim - isinstance(rows, np.ndarray)
    return ValueRange(parts[0].dtype, float(low), float(high), axes)


def check_same_scale(
    name: str, modality: str, ranges: Mapping[str, ValueRange | None], *, sequence: bool = False
) -> None:
    """Refuses a modality that has pixels in one split and floats from 0 to 1 in another.

    The type and, for images, the magnitude are compared with those of the training split.

    Args:
      name: name of the data set, for the message.
      modality: name of the modality.
      ranges: {split: its value range}.
      sequence: whether the modality is a sequence, whose counts or sensor values may legitimately
        rise from 1 to 100.

    Raises:
      ValueError: naming the splits and their ranges.
    """
    train = ranges.get("train")
    for split, other in ranges.items():
        if train is None or other is None:
            continue
        only_one_has_pixels = (train.kind == np.uint8) != (other.kind == np.uint8)
        has_floats = "f" in (train.kind.kind, other.kind.kind)
        lower, upper = sorted(max(abs(r.low), abs(r.high)) for r in (train, other))
        are_images = min(train.axes, other.axes) >= 2 and not sequence
        differs_in_magnitude = are_images and 0 < lower <= _UNIT_MAXIMUM and upper >= _PIXEL_MINIMUM
        if (only_one_has_pixels and has_floats) or differs_in_magnitude:
            raise ValueError(
                f"{name}: modality {modality!r} is {train} in 'train', but {other} in {split!r}; "
                "convert all splits to the same type and scale."
            )
