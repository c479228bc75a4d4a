"""What corruptions need to know about a modality: its units, from the training split."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Shaped

from mmjax.data.dataset import Modality, Source
from mmjax.data.normalize import compute_moments, make_validity_mask, reshape_to_features

_MAX_EXAMPLES = 1024  # of the training split, evenly spaced


class InputStatistics(NamedTuple):
    """The units of a modality, per feature (the last axis), and a few of its examples.

    Attributes:
      mean: mean of each feature.
      deviation: standard deviation of each feature.
      low: lower end of each feature's range: 0 for pixels of uint8 and uint16, otherwise the
        smallest value of the examples.
      high: upper end: 255, 65535, or the largest value.
      donors: training examples that have the modality.
      fill: the token that replaces a removed one; () for other inputs, or one per column.

    Example:
      >>> measure_values(np.array([[0.0], [2.0]], np.float32), Modality((1,))).deviation.tolist()
      [1.0]
    """

    mean: Float[np.ndarray, " d"]
    deviation: Float[np.ndarray, " d"]
    low: Float[np.ndarray, " d"]
    high: Float[np.ndarray, " d"]
    donors: Shaped[np.ndarray, "n ..."]
    fill: tuple[int, ...] = ()


def measure_input(source: Source, name: str, modality: Modality) -> InputStatistics:
    """Measures a modality of a training split: 1,024 of its examples, evenly spaced.

    Raises:
      ValueError: none of them has the modality.
    """
    count = min(len(source), _MAX_EXAMPLES)
    batch = source.take(np.arange(count) * len(source) // max(count, 1))
    present = np.asarray(batch.present[name])
    if not present.any():
        raise ValueError(f"no training example has the modality {name!r}; leave it out.")
    length = batch.lengths.get(name)
    length = None if length is None else np.asarray(length)[present]
    return measure_values(np.asarray(batch.inputs[name])[present], modality, length)


def measure_values(
    x: Shaped[np.ndarray, "n ..."], modality: Modality, length: Any | None = None
) -> InputStatistics:
    """Measures examples that all have the modality; padding does not count.

    Args:
      x: the examples.
      modality: their shape and vocabulary.
      length: Int[n], true lengths of sequences.
    """
    real = make_validity_mask(np.ones(len(x), bool), length, modality)
    values = reshape_to_features(x[real], modality) if x.ndim > 1 else x.reshape(-1, 1)
    moments = compute_moments(values)
    deviation = np.sqrt(moments.squares / moments.number)
    if x.dtype in (np.uint8, np.uint16):
        low = np.zeros(values.shape[1])
        high = low + np.iinfo(x.dtype).max
    else:
        low, high = values.min(axis=0).astype(float), values.max(axis=0).astype(float)
    return InputStatistics(moments.mean, deviation, low, high, x, _choose_fill(modality))


def _choose_fill(modality: Modality) -> tuple[int, ...]:
    """Chooses the token that stands for a removed one: a blank, an unknown word, or padding."""
    if modality.list_unknown_tokens():
        return modality.list_unknown_tokens()
    blank = ord(" ") + 1  # a byte is stored as its value plus 1
    is_bytes = len(modality.vocabulary) == 257
    return (blank,) if is_bytes else (0,) if modality.sequence else ()


def expand_features(values: Float[np.ndarray, " d"], ndim: int) -> Array | np.ndarray:
    """Reshapes one number per feature so that it broadcasts to an example with `ndim` axes.

    Example:
      >>> expand_features(np.zeros(3), 2).shape, expand_features(np.zeros(1), 0).shape
      ((1, 3), ())
    """
    shape = (1,) * (ndim - 1) + values.shape if ndim else ()
    return values.astype(np.float32).reshape(shape)
