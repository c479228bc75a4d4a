"""Compares the ranges of a modality between splits: one scale of numbers must hold for all."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

SAMPLE = 1024  # examples per split that are looked at, spread over it
VALUES = 1 << 22  # numbers in them, as a thousand photographs would take a gigabyte
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
    """Measures the finite values of some examples; None if there are none.

    Args:
      rows: [n, ...], or one array per example.
      here: which of them are present.
    """
    known = np.flatnonzero(here)
    if not len(known):
        return None
    count = min(SAMPLE, len(known), max(1, VALUES // max(1, rows[known[0]].size)))
    chosen = known[np.linspace(0, len(known) - 1, count).astype(int)]
    # Lists of arrays may differ in length.
    parts = [rows[chosen]] if isinstance(rows, np.ndarray) else [rows[i] for i in chosen]
    parts = [part for part in parts if part.size]
    finite = [f for part in parts if (f := part[np.isfinite(part)]).size]
    if not finite:
        return None
    low, high = min(part.min() for part in finite), max(part.max() for part in finite)
    axes = parts[0].ndim - isinstance(rows, np.ndarray)
    return Range(parts[0].dtype, float(low), float(high), axes)


def check_same_scale(
    name: str, modality: str, ranges: Mapping[str, Range | None], *, sequence: bool = False
) -> None:
    """Refuses a modality that is pixels in one split, and floats from 0 to 1 in another.

    Types and, for images, magnitudes are compared with those of the training split.

    Args:
      name: the data set's, for the message.
      modality: the modality's.
      ranges: {split: what its values are}.
      sequence: whether it is one, in which counts or sensors may well rise from 1 to 100.

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
        images = min(train.axes, other.axes) >= 2 and not sequence
        if (len(pixels) == 2 and floats) or (images and 0 < tops[0] <= DARK and tops[1] >= BRIGHT):
            raise ValueError(
                f"{name}: modality {modality!r} is {train} in 'train', but {other} in {split!r}; "
                "bring all splits to one type and one scale."
            )
