"""Standardization to mean 0 and standard deviation 1 by statistics of the training split.

The statistics are computed part by part. Features lie along the last axis: the elements of a
vector, the channels of an image, the bands of a frame. A sequence of plain numbers has one feature.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from mmjax.data.dataset import Modality, Source
from mmjax.masks import make_length_mask
from mmjax.types import Batch

# A mean of equal numbers is off by a few units in its last place.
_DOUBLE_RESOLUTION = 8 * float(np.finfo(np.float64).eps)
_CHUNK_VALUES = 1 << 17  # numbers that are converted to double precision at once


class Moments(NamedTuple):
    """Statistics of the values seen so far.

    Attributes:
      number: number of values per feature.
      mean: their mean.
      squares: the sum of their squared distances from the mean.
      resolution: the relative difference below which two values count as one: the rounding error of
        the type that they were given in.
    """

    number: int
    mean: Float[np.ndarray, " d"]
    squares: Float[np.ndarray, " d"]
    resolution: float = _DOUBLE_RESOLUTION


class Scale(NamedTuple):
    """A standardization: (x - mean) / deviation per feature."""

    mean: Float[np.ndarray, " d"]
    deviation: Float[np.ndarray, " d"]


def compute_moments(values: Shaped[np.ndarray, "n d"]) -> Moments:
    """Computes the moments of values, in double precision.

    Example:
      >>> compute_scale(compute_moments(np.array([[1.0], [3.0]])))
      Scale(mean=array([2.]), deviation=array([1.]))
    """
    is_narrow = values.dtype.kind == "f" and values.dtype.itemsize < 8
    resolution = float(np.finfo(np.float32).eps) if is_narrow else _DOUBLE_RESOLUTION
    values = values.astype(np.float64)
    mean = values.mean(axis=0)
    return Moments(len(values), mean, ((values - mean[None]) ** 2).sum(axis=0), resolution)


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Merges the moments of two sets of values (Chan, Golub and LeVeque 1979)."""
    # Chan, Golub, LeVeque 1979: with d = mean_b - mean_a, mean = mean_a + d n_b / n and
    # M2 = M2_a + M2_b + d^2 n_a n_b / n. Sums of squares of the raw numbers would cancel.
    number, difference = a.number + b.number, b.mean - a.mean
    return Moments(
        number,
        a.mean + difference * b.number / number,
        a.squares + b.squares + difference**2 * a.number * b.number / number,
        max(a.resolution, b.resolution),
    )


def compute_scale(moments: Moments) -> Scale:
    """Computes the scale to mean 0 and deviation 1; a constant is only shifted."""
    deviation = np.sqrt(moments.squares / moments.number)
    # A constant feature becomes 0, instead of its rounding errors divided by their deviation.
    return Scale(moments.mean, np.where(find_constants(moments), 1.0, deviation))


def find_constants(moments: Moments) -> Bool[np.ndarray, " d"]:
    """Finds the features that have one value only, up to the rounding error of their mean.

    Example:
      >>> find_constants(compute_moments(np.array([[0.1, 1.7e9], [0.1, 1.7e9 + 1]]))).tolist()
      [True, False]
    """
    deviation = np.sqrt(moments.squares / moments.number)
    return np.asarray(deviation <= moments.resolution * np.abs(moments.mean))


def compute_scale_by_chunks(
    x: np.ndarray, is_real: Bool[np.ndarray, "..."], spec: Modality
) -> tuple[Scale, Bool[np.ndarray, " d"]]:
    """Computes the scale of the values that are neither missing nor padding.

    Args:
      x: all examples, of which a few at a time are converted to double precision.
      is_real: [n], or [n time] for a sequence; at least one is true.
      spec: the modality.

    Returns:
      The scale, and which features are constant.
    """
    total = None
    for chunk in iterate_chunks(x):
        values = reshape_to_features(np.asarray(x[chunk])[is_real[chunk]], spec)
        if len(values):
            moments = compute_moments(values)
            total = merge_moments(total, moments) if total else moments
    assert total is not None
    return compute_scale(total), find_constants(total)


def iterate_chunks(x: np.ndarray) -> Iterator[slice]:
    """Yields slices of rows that have a few million bytes.

    Example:
      >>> [chunk.stop for chunk in iterate_chunks(np.zeros((3, 1 << 16)))]
      [2, 4]
    """
    rows = max(1, _CHUNK_VALUES // max(1, math.prod(x.shape[1:])))
    for start in range(0, len(x), rows):
        yield slice(start, start + rows)


def reshape_to_features(
    values: Shaped[np.ndarray, "..."], spec: Modality
) -> Shaped[np.ndarray, "n d"]:
    """Reshapes values of any number of axes, such as those of one example, to rows of features."""
    return values.reshape(-1, _count_features(spec))


def _count_features(spec: Modality) -> int:
    """Returns the number of features of a modality."""
    return 1 if spec.sequence and len(spec.shape) == 1 else spec.shape[-1]


def make_validity_mask(
    present: Bool[np.ndarray, " b"], lengths: Int[np.ndarray, " b"] | None, spec: Modality
) -> Bool[np.ndarray, "..."]:
    """Marks valid entries, neither missing nor padding: [b], or [b time] for a sequence.

    Example:
      >>> present, lengths = np.array([True, False]), np.array([2, 3])
      >>> make_validity_mask(present, lengths, Modality((3,), sequence=True)).tolist()
      [[True, True, False], [False, False, False]]
    """
    if lengths is None:
        return present
    return present[:, None] & make_length_mask(lengths, spec.shape[0])


def standardize_batch(
    batch: Batch, modalities: Mapping[str, Modality], scales: Mapping[str, Scale]
) -> Batch:
    """Standardizes the modalities that have a scale; missing values and padding become 0.

    Means are subtracted in double precision, before the numbers become float32.
    """
    inputs = dict(batch.inputs)
    for name, (mean, deviation) in scales.items():
        spec, x = modalities[name], inputs[name]
        valid = make_validity_mask(batch.present[name], batch.lengths.get(name), spec)
        valid = valid.reshape(*valid.shape, *(1,) * (x.ndim - valid.ndim))
        standardized = np.empty(x.shape, np.float32)
        for chunk in iterate_chunks(x):
            rows = (reshape_to_features(x[chunk], spec) - mean[None]) / deviation[None]
            # Standardizing would turn the zeros of padding into -mean / deviation.
            standardized[chunk] = np.where(valid[chunk], rows.reshape(x[chunk].shape), 0)
        inputs[name] = standardized
    return batch._replace(inputs=inputs)


@dataclasses.dataclass(frozen=True)
class StandardizedSource:
    """A source whose examples are standardized as they are read."""

    source: Source
    modalities: Mapping[str, Modality]
    scales: Mapping[str, Scale]

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: np.ndarray) -> Batch:
        """Returns the examples at `indices`, in that order, standardized."""
        return standardize_batch(self.source.take(indices), self.modalities, self.scales)


def make_standardize_filter(standardize: Sequence[str] | None) -> Callable[[str, np.dtype], bool]:
    """Makes the function that decides by name and dtype whether a modality is standardized.

    Example:
      >>> make_standardize_filter(None)("image", np.dtype(np.uint8))
      False
    """

    def is_standardized(name: str, dtype: np.dtype) -> bool:
        return np.issubdtype(dtype, np.inexact) if standardize is None else name in standardize

    return is_standardized
