"""Missingness as a transform of a data set, which removes modalities or labels that are present.

What is removed depends only on (seed, split, index) and the example's label, so that it is the
same for any order of reading and in any process. Splits in memory get their masks at once; others
get them with every batch that is read. No example loses its last modality.
"""

import dataclasses
import functools
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from mmjax.data.dataset import Arrays, Dataset, Source
from mmjax.data.missing_rules import MaskRule, drop_at_random, drop_by_label, keep_pattern
from mmjax.data.modality_dropout import Rates, check_rates, get_rate
from mmjax.types import Batch

Pattern = tuple[Sequence[str], float]


def at_random(
    data: Dataset,
    *,
    modalities: Rates = 0.0,
    labels: Rates = 0.0,
    splits: Sequence[str] = ("train",),
    seed: int = 0,
) -> Dataset:
    """Removes modalities and labels completely at random.

    Args:
      data: the data set.
      modalities: the rate of removal, one for all or {modality: rate}. If an example would lose all
        of its modalities, one of them stays, each equally likely.
      labels: the same for labels, one for all or {task: rate}; an example may lose all of them.
      splits: the splits to remove from.
      seed: random seed.

    Example:
      >>> from mmjax.data import interactions
      >>> data = at_random(interactions(train=1000), modalities={"a": 0.25})
      >>> int(data.splits["train"].batch.present["a"].sum())
      762
    """
    for name, rates, known in (
        ("modalities", modalities, data.modalities),
        ("labels", labels, data.tasks),
    ):
        check_rates(name, rates)
        _check_known(data, name, rates if isinstance(rates, Mapping) else (), known)
    return _mask_splits(data, functools.partial(drop_at_random, modalities, labels), splits, seed)


def by_label(
    data: Dataset,
    task: str,
    rates: Mapping[str, float],
    *,
    modalities: Sequence[str] = (),
    labels: Sequence[str] = (),
    splits: Sequence[str] = ("train",),
    seed: int = 0,
) -> Dataset:
    """Removes modalities or labels at a rate that depends on the class: not at random.

    Args:
      data: the data set.
      task: a classification; examples without its label lose nothing.
      rates: {class name: rate}; examples of the other classes lose nothing.
      modalities: the modalities to remove; an example keeps at least one.
      labels: the tasks whose labels are removed, which may include `task`.
      splits: the splits to remove from.
      seed: random seed.

    Example:
      >>> from mmjax.data import interactions
      >>> data = by_label(interactions(train=1000), "redundancy", {"1": 1.0}, modalities=["a"])
      >>> batch = data.splits["train"].batch
      >>> bool((batch.present["a"] == (batch.targets["redundancy"] == 0)).all())
      True
    """
    _check_known(data, "task", [task], data.tasks)
    spec = data.tasks[task]
    if spec.kind != "classification":
        raise ValueError(f"task {task!r} is a {spec.kind}; by_label needs a classification.")
    check_rates("rates", rates)
    _check_known(data, "rates", rates, spec.classes)
    _check_known(data, "modalities", modalities, data.modalities)
    _check_known(data, "labels", labels, data.tasks)
    if not modalities and not labels:
        raise ValueError("by_label removes nothing: name `modalities`, `labels` or both.")
    of_class = tuple(float(get_rate(rates, c)) for c in spec.classes)
    rule = functools.partial(drop_by_label, task, of_class, tuple(modalities), tuple(labels))
    return _mask_splits(data, rule, splits, seed)


def by_pattern(
    data: Dataset,
    patterns: Sequence[Pattern],
    *,
    splits: Sequence[str] = ("train",),
    seed: int = 0,
) -> Dataset:
    """Keeps in every example the modalities of one pattern, drawn with the given probabilities.

    An example that lacks some modalities draws among the patterns that leave it at least one; if
    there is none, it stays as it is. The protocol of Ma et al., AAAI 2021 (SMIL,
    arXiv:2103.05677) and Lee et al., CVPR 2023 (arXiv:2303.03369).

    Args:
      data: the data set.
      patterns: pairs of the modalities to keep and a probability; these sum to 1.
      splits: the splits to remove from.
      seed: random seed.

    Example:
      >>> from mmjax.data import interactions
      >>> patterns = [(("a", "b"), 0.6), (("a",), 0.3), (("b",), 0.1)]
      >>> batch = by_pattern(interactions(train=1000), patterns).splits["train"].batch
      >>> int(batch.present["a"].sum()), int(batch.present["b"].sum())
      (887, 689)
    """
    kept_modalities = [tuple(names) for names, _ in patterns]
    shares = [float(share) for _, share in patterns]
    for names, share in zip(kept_modalities, shares, strict=True):
        if not names:
            raise ValueError("A pattern is empty; every example keeps at least one modality.")
        _check_known(data, "patterns", names, data.modalities)
        check_rates(f"The probability of the pattern {names}", share)
    if abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"The patterns' probabilities {shares} sum to {sum(shares)}, not to 1.")
    return _mask_splits(
        data, functools.partial(keep_pattern, kept_modalities, shares), splits, seed
    )


@dataclasses.dataclass(frozen=True)
class Missing:
    """A source whose modalities and labels are removed by a rule as it is read."""

    source: Source
    rule: MaskRule
    seed: int
    split: str

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: np.ndarray) -> Batch:
        """Returns the examples at `indices`, in that order, with their new masks."""
        return self.masked(self.source.take(indices), indices)

    def masked(self, batch: Batch, indices: np.ndarray) -> Batch:
        """Applies the rule to examples that have already been read."""
        return self.rule(
            batch, lambda name: draw_uniform(self.seed, f"{self.split}/{name}", indices)
        )


def draw_uniform(seed: int, name: str, indices: Int[np.ndarray, " b"]) -> Float[np.ndarray, " b"]:
    """Draws numbers in [0, 1) that are functions of (seed, name, index), by SplitMix64 as a hash.

    Steele, Lea, Flood, OOPSLA 2014; one round each for the seed, the name and the index.

    Example:
      >>> numbers = draw_uniform(0, "train/a", np.array([3, 5]))
      >>> bool(numbers[1] == draw_uniform(0, "train/a", np.array([5]))[0])
      True
    """
    state = np.full(len(indices), seed % 2**64, np.uint64)
    for word in (np.uint64(zlib.crc32(name.encode())), np.asarray(indices).astype(np.uint64)):
        state = _mix_bits(state) ^ word
    return (_mix_bits(state) >> np.uint64(11)) * 2.0**-53  # a float64 has 53 bits of precision


def _mix_bits(z: np.ndarray) -> np.ndarray:
    """Computes one round of SplitMix64; arithmetic wraps modulo 2^64."""
    # SplitMix64 (Steele, Lea, Flood 2014): every input bit affects every output bit. So a draw
    # depends on the index alone, in any order of reading and in any process.
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _mask_splits(data: Dataset, rule: MaskRule, splits: Sequence[str], seed: int) -> Dataset:
    _check_known(data, "splits", splits, data.splits)
    changed = {name: _mask_source(data.splits[name], rule, seed, name) for name in splits}
    return dataclasses.replace(data, splits={**data.splits, **changed})


def _mask_source(source: Source, rule: MaskRule, seed: int, split: str) -> Source:
    """Wraps a source; one in memory gets new masks at once."""
    # Masks of examples in memory are drawn once for all epochs.
    lazy = Missing(source, rule, seed, split)
    if isinstance(source, Arrays):
        return Arrays(lazy.masked(source.batch, np.arange(len(source))))
    return lazy


def _check_known(data: Dataset, what: str, names: Iterable[str], known: Collection[str]) -> None:
    """Refuses names that a data set does not have."""
    for name in names:
        if name not in known:
            raise ValueError(f"{what}: {data.name} has no {name!r}, only {sorted(known)}.")
