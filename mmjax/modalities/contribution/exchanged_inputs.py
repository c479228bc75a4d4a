"""Predictions from inputs that are exchanged between examples: perceptual scores and EMAP.

An exchanged modality keeps its distribution, unlike one that is hidden, so that a model is judged
on inputs as it was trained with; but pairs of modalities may be such as never occur.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

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
    """Some examples of a split, as a split.

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
    """Permutes a modality over the examples that have it; who has it does not change.

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
    rows, order = np.flatnonzero(present), np.arange(len(present))
    order[rows] = np.random.default_rng(seed).permutation(rows)
    return ExchangedModality(source, modality, order)


def _read_presence(source: Source, modality: str) -> Bool[np.ndarray, " n"]:
    """Reads which examples have a modality."""
    starts = range(0, len(source), _PRESENCE_CHUNK)
    rows = (np.arange(i, min(i + _PRESENCE_CHUNK, len(source))) for i in starts)
    return np.concatenate([np.asarray(source.take(r).present[modality]) for r in rows])


def draw_partner_rows(examples: int, others: int, rounds: int, seed: int) -> Int[np.ndarray, "k o"]:
    """Draws the examples whose other modalities are combined with one modality of all examples.

    In each round every example takes part once in every column, in independent random orders: with
    one column, a round holds all pairs.

    Example:
      >>> draw_partner_rows(3, others=2, rounds=1, seed=0).tolist()
      [[2, 2], [0, 1], [1, 0]]
    """
    rng = np.random.default_rng(seed)
    orders = np.array([rng.permutation(examples) for _ in range(rounds * others)], np.int32)
    columns = orders.reshape(rounds, others, examples).transpose(0, 2, 1)
    return columns.reshape(rounds * examples, others)


def project_additively(
    predict: Callable[[Batch], Any],
    batch: Batch,
    modalities: Sequence[str],
    partners: Int[Array | np.ndarray, "k o"],
) -> Any:
    """Computes EMAP, the additive part of a model: f̃ = Σ_m E[f | x_m] - (M - 1) E f.

    Among all sums of functions of single modalities, f̃ is the nearest to f, in squares, when the
    modalities of the examples are combined at random. What the metric loses from f to f̃ is what
    the model owes to interactions; see the table in docs/contribution.md for when that is so.

    For two modalities and one round of partners, all n² pairs are predicted and the projection is
    exact. For more, n^M combinations are too many: each round predicts M n² of them. An additive f
    is its own projection for any number of rounds. A pure function, to be compiled as a whole.

    Source: Hessel and Lee, EMNLP 2020.

    Args:
      predict: batch -> outputs, a tree of arrays [n ...], such as logits.
      batch: the examples, all at once.
      modalities: names of the model's M modalities.
      partners: those of `draw_partner_rows` with M - 1 others.

    Returns:
      f̃ of every example, as `predict` returns f.

    Example:
      >>> def predict(batch):
      ...     return batch.inputs["a"] * batch.inputs["b"]
      >>> bits = {"a": jnp.array([1.0, 1.0, -1.0, -1.0]), "b": jnp.array([1.0, -1.0, 1.0, -1.0])}
      >>> batch = Batch(bits, {m: jnp.ones(4, bool) for m in bits}, {}, {}, {})
      >>> project_additively(predict, batch, ["a", "b"], draw_partner_rows(4, 1, 1, 0)).tolist()
      [0.0, 0.0, 0.0, 0.0]
    """
    batch, drawn = jax.tree.map(jnp.asarray, batch), jnp.asarray(partners)
    conditional = [_average_others(predict, batch, m, modalities, drawn) for m in modalities]

    def combine(*means: Array) -> Array:
        stacked = jnp.stack(means)
        grand_mean = stacked.mean(axis=(0, 1))
        return stacked.sum(axis=0) - (len(means) - 1) * grand_mean[None]

    return jax.tree.map(combine, *conditional)


def _average_others(
    predict: Callable[[Batch], Any],
    batch: Batch,
    modality: str,
    modalities: Sequence[str],
    partners: Int[Array, "k o"],
) -> Any:
    """Computes E[f | x_m] of every example: the mean over the partners' other modalities."""
    others = [m for m in modalities if m != modality]

    def predict_with(partner: Int[Array, " o"]) -> Any:
        mixed = batch
        for name, row in zip(others, partner, strict=True):
            same = jax.tree.map(lambda x, row=row: jnp.broadcast_to(x[row], x.shape), batch)
            mixed = _replace_modality(mixed, same, name)
        return predict(mixed)

    def add(total: Any, partner: Int[Array, " o"]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, predict_with(partner)), None

    # A running sum: the outputs of all pairs would not fit in memory.
    shapes = jax.eval_shape(predict_with, partners[0])
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, partners)
    return jax.tree.map(lambda x: x / len(partners), total)
