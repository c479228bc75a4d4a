"""Masks of the valid entries of a batch: within a sequence, of a present modality, of a label.

Arrays may hold anything, even NaN, where something is missing or padded. Zeros replace these values
BEFORE the computation, since NaN times 0 is NaN, in gradients too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from mmjax.types import Batch


def make_length_mask(lengths: Any, size: int, numpy: Any = np) -> Any:
    """Returns Bool[b, size] that is True at the positions inside of each sequence.

    Args:
      lengths: Int[b], the number of positions of each sequence.
      size: padded length.
      numpy: `numpy`, or `jax.numpy` inside of traced functions.

    Example:
      >>> make_length_mask(np.array([1, 3]), 3).tolist()
      [[True, False, False], [True, True, True]]
    """
    return numpy.arange(size)[None] < lengths[:, None]


def expand_mask(mask: Any, ndim: int) -> Array:
    """Appends axes of size 1 up to `ndim`, so that a mask of the first axes broadcasts."""
    return jnp.expand_dims(mask, range(mask.ndim, ndim))


def make_value_mask(x: Any, present: Bool[Array, " b"], length: Any | None) -> Bool[Array, "b ..."]:
    """Marks the values of a modality that each example has; broadcasts to the shape of x.

    Args:
      x: [b, ...], or [b, time, ...] of sequences.
      present: whether each example has the modality.
      length: Int[b], true lengths of sequences; None for other inputs.
    """
    mask = expand_mask(present, x.ndim)
    if length is None:
        return mask
    return mask & expand_mask(make_length_mask(length, x.shape[1], jnp), x.ndim)


def make_zero(x: Any) -> Array:
    """Returns 0 in the type of x, to replace masked values without promoting the others."""
    return jnp.zeros((), x.dtype)


def zero_missing_values(x: Any, present: Bool[Array, " b"], length: Any | None) -> Any:
    """Returns one modality's input with zeros in place of missing examples and padding.

    Args:
      x: [b, ...], or [b, time, ...] of sequences; a mapping of such arrays if it has parts.
      present: whether each example has the modality.
      length: Int[b], true lengths of sequences; a mapping of them if the modality has parts.

    Example:
      >>> x = {"nodes": jnp.array([[1, 2], [3, 4]]), "size": jnp.array([5, 6])}
      >>> present, length = jnp.array([True, False]), {"nodes": jnp.array([1, 2])}
      >>> {n: part.tolist() for n, part in zero_missing_values(x, present, length).items()}
      {'nodes': [[1, 0], [0, 0]], 'size': [5, 0]}
    """
    if isinstance(x, Mapping):
        lengths = length or {}
        return {n: zero_missing_values(part, present, lengths.get(n)) for n, part in x.items()}
    return jnp.where(make_value_mask(x, present, length), x, make_zero(x))


def zero_missing_inputs(batch: Batch) -> dict[str, Any]:
    """Returns the inputs with zeros in place of missing modalities and padding."""
    inputs = {}
    for m, x in batch.inputs.items():
        inputs[m] = zero_missing_values(x, batch.present[m], batch.lengths.get(m))
    return inputs


def zero_missing_targets(batch: Batch) -> dict[str, Array]:
    """Returns the targets with zeros in place of missing labels.

    A bad target gives NaN gradients even if its loss is masked.
    """
    targets = {}
    for t, y in batch.targets.items():
        targets[t] = jnp.where(expand_mask(batch.labeled[t], y.ndim), y, jnp.zeros_like(y))
    return targets


def sum_masked(x: Array, mask: Bool[Array, " b"]) -> Array:
    """Sums over the examples that the mask marks."""
    return jnp.where(expand_mask(mask, x.ndim), x, jnp.zeros_like(x)).sum(0)


def pad_ragged(rows: Sequence[Any], shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Returns rows of different lengths as one array [rows, *shape], zeros after each row's end.

    Args:
      rows: arrays [length, ...]; None is a row of zeros.
      shape: of each padded row.
      dtype: of the result.

    Example:
      >>> pad_ragged([np.array([1, 2, 3]), None, np.array([4])], (3,), np.int32).tolist()
      [[1, 2, 3], [0, 0, 0], [4, 0, 0]]
    """
    # Missing rows stay zeros, like padding.
    padded = np.zeros((len(rows), *shape), dtype)
    for padded_row, row in zip(padded, rows, strict=True):
        if row is not None:
            padded_row[: len(row)] = row
    return padded
