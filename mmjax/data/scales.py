"""Compares the ranges of a modality between splits: one scale of numbers must hold for all."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

SAMPLE = 1024  # examples per split that are looked at
DARK, BRIGHT = 1.0, 64.0  # largest magnitude of images from 0 to 1, and less than that of pixels


class Range(NamedTuple):
    """The values of a modality in one split.

    Attributes:
      kind: their type.
      low: the smallest.
      high: the largest.
      axes: of one example.
    """

    kind: np.dtype
    low: float
    high: float
    axes: int

    def __str__(self) -> str:
        return f"{self.kind} from {self.low:.4g} to {self.high:.4g}"


def value_range(
    rows: np.ndarray | Sequence[np.ndarray], here: Bool[np.ndarray, " n"]
) -> Range | None:
    """Measures the finite values of the first examples; None if there are none.

    Args:
      rows: [n, ...], or one array per example.
      here: which of them are present.
    """
    chosen = np.flatnonzero(here)[:SAMPLE]
    if not len(chosen):
        return None
    # Lists of arrays may differ in length.
    parts = [rows[chosen]] if isinstance(rows, np.ndarray) else [rows[i] for i in chosen]
    parts = [part for part in parts if part.size]
    finite = [f for part in parts if (f := part[np.isfinite(part)]).size]
    if not finite:
        return None
    low, high = min(part.min() for part in finite), max(part.max() for part in finite)
    axes = parts[0].ndim - isinstance(rows, np.ndarray)
    return Range(parts[0].dtype, float(low), float(high), axes)


def check_same_scale(name: str, modality: str, ranges: Mapping[str, Range | None]) -> None:
    """Refuses a modality that is pixels in one split, and floats from 0 to 1 in another.

    Types and, for images, magnitudes are compared with those of the training split.

    Args:
      name: the data set's, for the message.
      modality: the modality's.
      ranges: {split: what its values are}.

    Raises:
      ValueError: naming the splits and their ranges.
    """
    train = ranges.get("train")
    for split, other in ranges.items():
        if train is None or other is None:
            continue
        pixels = {r.kind == np.uint8 for r in (train, other)}
        floats = any(r.kind.kind == "f" for r in (train, other))
        tops = sorted(max(abs(r.low), abs(r.high)) for r in (train, other))
        images = min(train.axes, other.axes) >= 2
        if (len(pixels) == 2 and floats) or (images and 0 < tops[0] <= DARK and tops[1] >= BRIGHT):
            raise ValueError(
                f"{name}: modality {modality!r} is {train} in 'train', but {other} in {split!r}; "
                "bring all splits to one type and one scale."
            )
