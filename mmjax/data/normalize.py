"""Mean 0 and standard deviation 1, by the training split's statistics, taken a part at a time.

What counts as one number's feature is the last axis: an element of a vector, a channel of an
image, a band of a frame. In a sequence of plain numbers all of them are one feature.
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
    """What is known of the values seen so far.

    Attributes:
      number: how many there were of each feature.
      mean: their mean.
      squares: the sum of their squared distances from it.
    """

    number: int
    mean: Float[np.ndarray, " d"]
    squares: Float[np.ndarray, " d"]


class Scale(NamedTuple):
    """How to standardise: (x - mean) / deviation, feature by feature."""

    mean: Float[np.ndarray, " d"]
    deviation: Float[np.ndarray, " d"]


def moments(values: Num[np.ndarray, "n d"]) -> Moments:
    """The moments of values, in double precision."""
    values = values.astype(np.float64)
    mean = values.mean(axis=0)
    return Moments(len(values), mean, ((values - mean[None]) ** 2).sum(axis=0))


def merged(a: Moments, b: Moments) -> Moments:
    """The moments of both together (Chan, Golub and LeVeque 1979)."""
    number, apart = a.number + b.number, b.mean - a.mean
    return Moments(
        number,
        a.mean + apart * b.number / number,
        a.squares + b.squares + apart**2 * a.number * b.number / number,
    )


def scale(moments: Moments) -> Scale:
    """The scale that brings such values to mean 0 and deviation 1; a constant is only shifted."""
    deviation = np.sqrt(moments.squares / moments.number)
    constant = deviation <= np.finfo(np.float32).eps * np.abs(moments.mean)
    return Scale(moments.mean, np.where(constant, 1.0, deviation))


def by_feature(values: Num[np.ndarray, "..."], spec: Modality) -> Num[np.ndarray, "n d"]:
    """Values of any number of axes, such as those of one example, as rows of features."""
    return values.reshape(-1, features(spec))


def features(spec: Modality) -> int:
    """How many features a modality has."""
    return 1 if spec.sequence and len(spec.shape) == 1 else spec.shape[-1]


def real(
    present: Bool[np.ndarray, " b"], lengths: Int[np.ndarray, " b"] | None, spec: Modality
) -> Bool[np.ndarray, "..."]:
    """Which places are neither missing nor padding: [b], or [b time] for a sequence."""
    if lengths is None:
        return present
    return present[:, None] & make_length_mask(lengths, spec.shape[0])


def standardised(
    batch: Batch, modalities: Mapping[str, Modality], scales: Mapping[str, Scale]
) -> Batch:
    """Standardises the modalities that have a scale; what is missing or padding becomes 0."""
    inputs = dict(batch.inputs)
    for name, (mean, deviation) in scales.items():
        spec, x = modalities[name], inputs[name]
        rows = (by_feature(x, spec) - mean[None]) / deviation[None]
        here = real(batch.present[name], batch.lengths.get(name), spec)
        filled = here.reshape(*here.shape, *(1,) * (x.ndim - here.ndim))
        inputs[name] = np.where(filled, rows.reshape(x.shape), 0).astype(np.float32)
    return batch._replace(inputs=inputs)


@dataclasses.dataclass(frozen=True)
class Standardised:
    """A source whose examples are standardised as they are read."""

    source: Source
    modalities: Mapping[str, Modality]
    scales: Mapping[str, Scale]

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: np.ndarray) -> Batch:
        """The examples at `indices`, in that order."""
        return standardised(self.source.take(indices), self.modalities, self.scales)
