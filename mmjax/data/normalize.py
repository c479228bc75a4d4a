"""Standardization to mean 0 and standard deviation 1 by statistics of the training split.

The statistics are computed part by part. Features lie along the last axis: the elements of a
vector, the channels of an image, the bands of a frame. A sequence of plain numbers has one feature.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from mmjax.data.dataset import Modality, Source
from mmjax.masks import make_length_mask
from mmjax.types import Batch


class Moments(NamedTuple):
    """Statistics of the values seen so far.

    Attributes:
      number: number of values per feature.
      mean: their mean.
      squares: the sum of their squared distances from the mean.
    """

    number: int
    mean: Float[np.ndarray, " d"]
    squares: Float[np.ndarray, " d"]


class Scale(NamedTuple):
    """A standardization: (x - mean) / deviation per feature."""

    mean: Float[np.ndarray, " d"]
    deviation: Float[np.ndarray, " d"]


def compute_moments(values: Num[np.ndarray, "n d"]) -> Moments:
    """Computes the moments of values, in double precision.

    Example:
      >>> compute_scale(compute_moments(np.array([[1.0], [3.0]])))
      Scale(mean=array([2.]), deviation=array([1.]))
    """
    values = values.astype(np.float64)
    mean = values.mean(axis=0)
    return Moments(len(values), mean, ((values - mean[None]) ** 2).sum(axis=0))


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Merges the moments of two sets of values (Chan, Golub and LeVeque 1979)."""
    number, difference = a.number + b.number, b.mean - a.mean
    return Moments(
        number,
        a.mean + difference * b.number / number,
        a.squares + b.squares + difference**2 * a.number * b.number / number,
    )


def compute_scale(moments: Moments) -> Scale:
    """Computes the scale to mean 0 and deviation 1; a constant is only shifted."""
    deviation = np.sqrt(moments.squares / moments.number)
    # A deviation within the rounding error of the mean is that of a constant: never divide by it.
    constant = deviation <= np.finfo(np.float32).eps * np.abs(moments.mean)
    return Scale(moments.mean, np.where(constant, 1.0, deviation))


def reshape_to_features(values: Num[np.ndarray, "..."], spec: Modality) -> Num[np.ndarray, "n d"]:
    """Reshapes values of any number of axes, such as those of one example, to rows of features."""
    return values.reshape(-1, _count_features(spec))


def _count_features(spec: Modality) -> int:
    """Returns the number of features of a modality."""
    return 1 if spec.sequence and len(spec.shape) == 1 else spec.shape[-1]


def make_validity_mask(
    present: Bool[np.ndarray, " b"], lengths: Int[np.ndarray, " b"] | None, spec: Modality
) -> Bool[np.ndarray, "..."]:
    """Marks what is neither missing nor padding: [b], or [b time] for a sequence.

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
    """Standardizes the modalities that have a scale; what is missing or padding becomes 0."""
    inputs = dict(batch.inputs)
    for name, (mean, deviation) in scales.items():
        spec, x = modalities[name], inputs[name]
        rows = (reshape_to_features(x, spec) - mean[None]) / deviation[None]
        valid = make_validity_mask(batch.present[name], batch.lengths.get(name), spec)
        valid = valid.reshape(*valid.shape, *(1,) * (x.ndim - valid.ndim))
        inputs[name] = np.where(valid, rows.reshape(x.shape), 0).astype(np.float32)
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
