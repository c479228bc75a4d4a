"""Detection of examples that occur in two splits, by hashes of their inputs."""

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import UInt64

from mmjax.data.dataset import Modality, Source
from mmjax.data.normalize import iterate_chunks, make_validity_mask
from mmjax.types import Batch

Digests = Sequence[bytes] | UInt64[np.ndarray, "n 2"]


def warn_about_duplicates(
    name: str,
    digests: Mapping[str, Digests],
    place: Callable[[str, int], str] = lambda split, row: f"row {row} of {split!r}",
) -> None:
    """Warns, once per pair of splits, if examples of one occur in the other.

    Args:
      name: name of the data set, for the message.
      digests: {split: hash of every example's inputs, of 16 bytes}.
      place: formats the location of a row (its split and index), for the message.
    """
    keys = {split: _convert_to_keys(rows) for split, rows in digests.items()}
    for a, b in itertools.combinations(keys, 2):
        shared = np.flatnonzero(np.isin(keys[b], keys[a]))
        if len(shared):
            first = int(np.flatnonzero(keys[a] == keys[b][shared[0]])[0])
            warnings.warn(
                f"{name}: {len(shared)} of the {len(keys[b])} examples of {b!r} have the same "
                f"inputs as one of {a!r}, first {place(b, int(shared[0]))} and {place(a, first)}.",
                stacklevel=2,
            )


def _convert_to_keys(digests: Digests) -> np.ndarray:
    """Returns one string of 16 bytes per example."""
    if isinstance(digests, np.ndarray):
        return np.ascontiguousarray(digests).view("S16")[:, 0]
    return np.array(list(digests), "S16")


def hash_modality(
    source: Source, name: str, spec: Modality, number: int
) -> UInt64[np.ndarray, "n 2"]:
    """Hashes a modality of all examples, many at once; what is missing or padding does not count.

    The sum over the modalities, whose `number` must differ, is the hash of an example.

    A hash is a sum of the example's 32-bit words times random odd numbers, modulo 2**64, twice:
    two examples that differ have the same one with a probability below 2**-60 (Dietzfelbinger
    et al. 1997).

    Example:
      >>> from mmjax.data.dataset import Arrays
      >>> batch = Batch({"x": np.array([[1.0], [2.0], [1.0]])}, {"x": np.ones(3, bool)}, {}, {}, {})
      >>> a, b, c = hash_modality(Arrays(batch), "x", Modality((1,)), 0).tolist()
      >>> a == c, a == b
      (True, False)
    """
    values = math.prod(spec.shape)
    digests = np.empty((len(source), 2), np.uint64)
    # A view of one number, with the size of all inputs of all examples.
    for chunk in iterate_chunks(np.broadcast_to(np.float32(0), (len(source), values))):
        indices = np.arange(len(source))[chunk]
        digests[chunk] = _hash_rows(source.take(indices), name, spec, number)
    return digests


def _hash_rows(batch: Batch, name: str, spec: Modality, number: int) -> UInt64[np.ndarray, "n 2"]:
    x, present, lengths = batch.inputs[name], batch.present[name], batch.lengths.get(name)
    is_real = make_validity_mask(present, lengths, spec)
    is_real = is_real.reshape(*is_real.shape, *(1,) * (x.ndim - is_real.ndim))
    content = np.ascontiguousarray(np.where(is_real, x, np.zeros((), x.dtype)))
    words = _convert_to_words(content.reshape(len(x), -1))
    # Presence and length count too: zeros are values as well.
    sizes = present.astype(np.int64) if lengths is None else present * (1 + lengths.astype(int))
    words = np.concatenate([words, sizes[:, None].astype(np.uint64)], axis=1)
    # Multilinear hashing modulo 2^64: sum_i word_i a_i with fixed random odd a_i. Odd numbers
    # are invertible, so that a change of a single word always changes the sum.
    return words @ _draw_odd_numbers(number, words.shape[1])


def _convert_to_words(rows: np.ndarray) -> UInt64[np.ndarray, "n w"]:
    """Converts rows of numbers to rows of 32-bit words, each as 64 bits."""
    if rows.dtype.itemsize % 4 == 0:
        return rows.view(np.uint32).astype(np.uint64)
    return rows.astype(np.int64).astype(np.uint64)  # pixels and other narrow types


def _draw_odd_numbers(seed: int, count: int) -> UInt64[np.ndarray, "w 2"]:
    drawn = np.random.default_rng(seed).integers(0, 2**64, (count, 2), np.uint64)
    return drawn | np.uint64(1)
