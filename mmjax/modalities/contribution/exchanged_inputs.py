"""Splits in which a modality is exchanged between the examples, for perceptual scores.

An exchanged modality keeps its distribution, unlike one that is hidden, so that a model is judged
on inputs as it was trained with; but pairs of modalities may be such as never occur.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int

from mmjax.data.dataset import Source
from mmjax.types import Batch

_PRESENCE_CHUNK = 4096  # examples that are read at once to see which have a modality


@dataclasses.dataclass(frozen=True)
class ExchangedModality:
    """A split in which one modality of every example is that of another example.

    Attributes:
      source: the split.
      modality: the modality that is exchanged.
      order: numbers of the examples whose modality is taken.
    """

    source: Source
    modality: str
    order: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: np.ndarray) -> Batch:
        """Returns the examples at `indices`, with the modality of the examples at `order`."""
        batch, other = self.source.take(indices), self.source.take(self.order[indices])
        return _replace_modality(batch, other, self.modality)


@dataclasses.dataclass(frozen=True)
class SampledRows:
    """Sample of a split's examples, which is a split itself.

    Attributes:
      source: the split.
      rows: numbers of the examples.
    """

    source: Source
    rows: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: np.ndarray) -> Batch:
        """Returns the examples at `indices` of the sample."""
        return self.source.take(self.rows[indices])


def _replace_modality(batch: Batch, other: Batch, modality: str) -> Batch:
    """Takes one modality, its presence and its lengths from another batch."""
    parts = {}
    for name in ("inputs", "present", "lengths"):
        part, others = getattr(batch, name), getattr(other, name)
        parts[name] = part | {m: others[m] for m in others if m == modality}
    return batch._replace(**parts)


def permute_modality(source: Source, modality: str, seed: int) -> ExchangedModality:
    """Permutes a modality among the examples that have it; the others still lack it.

    The perceptual score of the modality is the metric of the split minus that of the permuted
    split, averaged over permutations. Source: Gat et al., NeurIPS 2021.

    Args:
      source: the split.
      modality: the modality.
      seed: seed of the permutation.

    Example:
      >>> from mmjax.data.dataset import Arrays
      >>> here = np.array([True, True, False, True])
      >>> split = Arrays(Batch({"a": np.arange(4)}, {"a": here}, {}, {}, {}))
      >>> permuted = permute_modality(split, "a", seed=0).take(np.arange(4))
      >>> permuted.inputs["a"].tolist(), permuted.present["a"].tolist()
      ([3, 0, 2, 1], [True, True, False, True])
    """
    present = _read_presence(source, modality)
    # Only those that have it change places, so that no example gains or loses the modality.
    rows, order = np.flatnonzero(present), np.arange(len(present))
    order[rows] = np.random.default_rng(seed).permutation(rows)
    return ExchangedModality(source, modality, order)


def _read_presence(source: Source, modality: str) -> Bool[np.ndarray, " n"]:
    """Reads where a modality is present."""
    starts = range(0, len(source), _PRESENCE_CHUNK)
    rows = (np.arange(i, min(i + _PRESENCE_CHUNK, len(source))) for i in starts)
    return np.concatenate([np.asarray(source.take(r).present[modality]) for r in rows])
