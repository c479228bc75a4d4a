"""Missingness as a transform of a data set: modalities or labels that are there are taken away.

What goes depends on (seed, split, index) and the example's own label alone, so that it is the same
in whatever order examples are read, in any process. Splits that lie in memory get their masks at
once; others get them with every batch that is read. No example loses its last modality.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from mmjax.data.augment import Rates, check_rates, rate_of
from mmjax.data.dataset import Arrays, Dataset, Source
from mmjax.types import Batch

Uniform = Callable[[str], Float[np.ndarray, " b"]]
Rule = Callable[[Batch, Uniform], Batch]
Pattern = tuple[Sequence[str], float]


def at_random(
    data: Dataset,
    *,
    modalities: Rates = 0.0,
    labels: Rates = 0.0,
    splits: Sequence[str] = ("train",),
    seed: int = 0,
) -> Dataset:
    """Modalities and labels missing completely at random.

    Args:
      data: what to take from.
      modalities: the rate at which each is lost, one for all or {modality: rate}. Where an example
        would lose all it has, one of them stays, each equally likely.
      labels: the same for labels, {task: rate}; an example may lose them all.
      splits: the splits that lose something.
      seed: decides which.
    """
    for name, rates, known in (
        ("modalities", modalities, data.modalities),
        ("labels", labels, data.tasks),
    ):
        check_rates(name, rates)
        _known(data, name, rates if isinstance(rates, Mapping) else (), known)
    return _masked(data, functools.partial(_lose, modalities, labels), splits, seed)


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
    """Modalities or labels missing at a rate that depends on the class: not at random.

    Args:
      data: what to take from.
      task: a classification; examples without its label lose nothing.
      rates: {class name: rate}; examples of the other classes lose nothing.
      modalities: those that may be lost; an example keeps at least one.
      labels: the tasks whose labels may be lost, `task` itself among them if named.
      splits: the splits that lose something.
      seed: decides which.
    """
    _known(data, "task", [task], data.tasks)
    spec = data.tasks[task]
    if spec.kind != "classification":
        raise ValueError(f"task {task!r} is a {spec.kind}; by_label needs a classification.")
    check_rates("rates", rates)
    _known(data, "rates", rates, spec.classes)
    _known(data, "modalities", modalities, data.modalities)
    _known(data, "labels", labels, data.tasks)
    if not modalities and not labels:
        raise ValueError("by_label takes nothing away: name `modalities`, `labels` or both.")
    of_class = tuple(float(rate_of(rates, c)) for c in spec.classes)
    rule = functools.partial(_lose_by_label, task, of_class, tuple(modalities), tuple(labels))
    return _masked(data, rule, splits, seed)


def by_pattern(
    data: Dataset,
    patterns: Sequence[Pattern],
    *,
    splits: Sequence[str] = ("train",),
    seed: int = 0,
) -> Dataset:
    """Every example keeps the modalities of one pattern, drawn with the given probabilities.

        by_pattern(data, [(("image", "text"), 0.6), (("image",), 0.3), (("text",), 0.1)])

    An example that lacks some modalities draws among the patterns that leave it at least one, and
    stays as it is where there is none. The protocol of Ma et al., AAAI 2021 (SMIL,
    arXiv:2103.05677) and Lee et al., CVPR 2023 (arXiv:2303.03369).

    Args:
      data: what to take from.
      patterns: pairs of the modalities kept and a probability; these sum to 1.
      splits: the splits that lose something.
      seed: decides which.
    """
    kept = [tuple(names) for names, _ in patterns]
    shares = [float(share) for _, share in patterns]
    for names, share in zip(kept, shares, strict=True):
        if not names:
            raise ValueError("A pattern is empty; every example keeps at least one modality.")
        _known(data, "patterns", names, data.modalities)
        check_rates(f"The probability of the pattern {names}", share)
    if abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"The patterns' probabilities {shares} sum to {sum(shares)}, not to 1.")
    return _masked(data, functools.partial(_keep_pattern, kept, shares), splits, seed)


@dataclasses.dataclass(frozen=True)
class Missing:
    """A source that loses modalities and labels by a rule as it is read."""

    source: Source
    rule: Rule
    seed: int
    split: str

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: np.ndarray) -> Batch:
        """The examples at `indices`, with what is left to them."""
        return self.masked(self.source.take(indices), indices)

    def masked(self, batch: Batch, indices: np.ndarray) -> Batch:
        """Applies the rule to examples that were read already."""
        return self.rule(batch, lambda name: uniform(self.seed, f"{self.split}/{name}", indices))


def uniform(seed: int, name: str, indices: Int[np.ndarray, " b"]) -> Float[np.ndarray, " b"]:
    """Numbers in [0, 1), each a function of (seed, name, index): SplitMix64 as a hash.

    Steele, Lea, Flood, OOPSLA 2014; three rounds, one for each of the three.
    """
    state = np.full(len(indices), seed % 2**64, np.uint64)
    for word in (np.uint64(zlib.crc32(name.encode())), np.asarray(indices).astype(np.uint64)):
        state = _mix(state) ^ word
    return (_mix(state) >> np.uint64(11)) * 2.0**-53


def _mix(z: np.ndarray) -> np.ndarray:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _masked(data: Dataset, rule: Rule, splits: Sequence[str], seed: int) -> Dataset:
    _known(data, "splits", splits, data.splits)
    changed = {name: _wrap(data.splits[name], rule, seed, name) for name in splits}
    return dataclasses.replace(data, splits={**data.splits, **changed})


def _wrap(source: Source, rule: Rule, seed: int, split: str) -> Source:
    """Lazily, but for what lies in memory: only its masks are new."""
    lazy = Missing(source, rule, seed, split)
    if isinstance(source, Arrays):
        return Arrays(lazy.masked(source.batch, np.arange(len(source))))
    return lazy


def _lose(modalities: Rates, labels: Rates, batch: Batch, draw: Uniform) -> Batch:
    lost = {m: np.full(len(x), rate_of(modalities, m), float) for m, x in batch.present.items()}
    unlabeled = {t: np.full(len(x), rate_of(labels, t), float) for t, x in batch.labeled.items()}
    return _lose_at(batch, lost, unlabeled, draw)


def _lose_by_label(
    task: str,
    of_class: tuple[float, ...],
    modalities: tuple[str, ...],
    labels: tuple[str, ...],
    batch: Batch,
    draw: Uniform,
) -> Batch:
    known = batch.labeled[task]
    rate = np.where(known, np.array(of_class)[np.where(known, batch.targets[task], 0)], 0.0)
    zero = np.zeros_like(rate)
    lost = {m: rate if m in modalities else zero for m in batch.present}
    unlabeled = {t: rate if t in labels else zero for t in batch.labeled}
    return _lose_at(batch, lost, unlabeled, draw)


def _lose_at(
    batch: Batch,
    modalities: Mapping[str, Float[np.ndarray, " b"]],
    labels: Mapping[str, Float[np.ndarray, " b"]],
    draw: Uniform,
) -> Batch:
    """Loses each modality and label at its example's rate, never the last modality."""
    with np.errstate(all="ignore"):
        # As in `augment.drop_modalities`: below 1 it goes, and the largest is the one that stays.
        scores = {
            m: np.where(rate > 0, draw(f"modality/{m}") / rate, np.inf)
            for m, rate in modalities.items()
        }
    best = np.max([np.where(x, scores[m], 0.0) for m, x in batch.present.items()], axis=0)
    present = {m: x & (scores[m] >= np.minimum(best, 1.0)) for m, x in batch.present.items()}
    labeled = {t: x & (draw(f"label/{t}") >= labels[t]) for t, x in batch.labeled.items()}
    return batch._replace(present=present, labeled=labeled)


def _keep_pattern(
    patterns: Sequence[tuple[str, ...]], shares: Sequence[float], batch: Batch, draw: Uniform
) -> Batch:
    kept = {m: np.array([m in names for names in patterns]) for m in batch.present}  # [p] each
    left = np.any([x[:, None] & kept[m][None] for m, x in batch.present.items()], axis=0)
    bounds = np.cumsum(left * np.array(shares)[None], axis=1)  # [b p]
    chosen = _chosen(bounds, draw("pattern"))
    some = bounds[:, -1] > 0
    present = {m: x & (kept[m][chosen] | ~some) for m, x in batch.present.items()}
    return batch._replace(present=present)


def _chosen(
    bounds: Float[np.ndarray, "b p"], draws: Float[np.ndarray, " b"]
) -> Int[np.ndarray, " b"]:
    """The first interval whose upper bound lies above the draw; never an empty one."""
    total = bounds[:, -1:]
    return np.argmax((bounds > draws[:, None] * total) | (bounds == total), axis=1)


def _known(data: Dataset, what: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{what}: {data.name} has no {name!r}, only {sorted(known)}.")
