"""Warnings about inputs that reveal a label, and about groups that several splits share."""

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from mmjax.data.dataset import Arrays, Dataset, Modality

_MIN_EXAMPLES = 30  # fewer agree by chance
_MIN_PER_CLASS = 5  # on average
_MAX_EXAMPLES = 20_000  # looked at per modality, spread over the training split
_MAX_FEATURES = 1000  # of a vector; more are measurements, not columns
_MAX_STEPS = 64  # of a sequence that may be a name
_MIN_AGREEMENT = 0.99  # share of examples in which a value stands for one class, and vice versa
_MIN_CORRELATION = 0.99995


def warn_about_giveaways(data: Dataset) -> None:
    """Warns if an input is (nearly) one-to-one with the classes or numbers of a task.

    Looked at are vectors feature by feature, and short sequences of integers, such as texts, as a
    whole, of a training split in memory.

    Args:
      data: the data set.
    """
    source = data.splits["train"]
    if not isinstance(source, Arrays):
        return
    batch = source.batch
    for task, spec in data.tasks.items():
        if spec.shape or spec.kind not in ("classification", "ordinal", "regression"):
            continue
        for m, modality in data.modalities.items():
            rows = np.flatnonzero(np.asarray(batch.labeled[task]) & np.asarray(batch.present[m]))
            if len(rows) < _MIN_EXAMPLES or not _is_looked_at(modality):
                continue
            count = min(len(rows), _MAX_EXAMPLES)
            rows = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
            x, y = np.asarray(batch.inputs[m])[rows], np.asarray(batch.targets[task])[rows]
            for what, values in _iterate_features(x, modality):
                if _gives_away(values, y, is_number=spec.kind == "regression"):
                    warnings.warn(
                        f"{data.name}: {what} of modality {m!r} gives the target {task!r} away: "
                        "the two are (nearly) one-to-one in the training split. Leave it out if it "
                        "is not known when predictions are made.",
                        stacklevel=4,
                    )


def _is_looked_at(modality: Modality) -> bool:
    if len(modality.shape) != 1:
        return False
    return modality.shape[0] <= (_MAX_STEPS if modality.sequence else _MAX_FEATURES)


def _iterate_features(
    x: Shaped[np.ndarray, "n d"], modality: Modality
) -> Iterator[tuple[str, Shaped[np.ndarray, " n"]]]:
    """Yields every feature of vectors, or each sequence of integers as one value."""
    if not modality.sequence:
        for i in range(x.shape[1]):
            yield f"feature {i}" if x.shape[1] > 1 else "the value", x[:, i]
    elif x.dtype.kind in "iu":
        x = np.ascontiguousarray(x)
        yield "the content", x.view(np.dtype((np.void, x.dtype.itemsize * x.shape[1])))[:, 0]


def _gives_away(
    values: Shaped[np.ndarray, " n"], y: Shaped[np.ndarray, " n"], is_number: bool
) -> bool:
    if is_number:
        return values.dtype.kind == "f" and abs(_correlate(values, y)) >= _MIN_CORRELATION
    distinct, codes = np.unique(values, return_inverse=True)
    classes, y = np.unique(y, return_inverse=True)
    # Values that are all different agree with classes that are all different.
    if len(classes) < 2 or len(y) < _MIN_PER_CLASS * len(classes):
        return False
    if not 2 <= len(distinct) <= 2 * len(classes):
        return False
    counts = np.zeros((len(distinct), len(classes)))
    np.add.at(counts, (codes.reshape(-1), y), 1)
    # The share of examples that remain if every class keeps only its most frequent value, or every
    # value its most frequent class: 1 only for a one-to-one relation.
    agreement = min(counts.max(axis=0).sum(), counts.max(axis=1).sum()) / len(y)
    return bool(agreement >= _MIN_AGREEMENT)


def _correlate(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Computes Pearson's correlation in float64; 0 for a constant."""
    a, b = x.astype(np.float64), y.astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if norm > 0 else 0.0


def warn_about_shared_groups(name: str, column: str, groups: Mapping[str, Sequence[Any]]) -> None:
    """Warns, once per pair of splits, if examples of one group are in both.

    Args:
      name: name of the data set, for the message.
      column: the column of the groups, for the message.
      groups: {split: the group of every example}.

    Example:
      >>> warn_about_shared_groups("scans", "patient", {"train": [1, 1, 2], "test": [3]})
    """
    members = {split: {str(group) for group in values} for split, values in groups.items()}
    order = sorted(members, key=lambda split: split != "train")  # the training split first
    for a, b in itertools.combinations(order, 2):
        shared = sorted(members[a] & members[b])
        if shared:
            warnings.warn(
                f"{name}: {len(shared)} groups of column {column!r} are in {a!r} and in {b!r}, "
                f"such as {shared[0]!r}, so that {b!r} does not measure how a model does on new "
                "ones.",
                stacklevel=2,
            )
