"""From examples that are read one by one to a data set: inferred, checked, standardised."""

import dataclasses
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from mmjax.data.dataset import Arrays, Dataset, Modality, Source, Task
from mmjax.data.describe.announce import announce, summary
from mmjax.data.duplicates import warn_of_duplicates
from mmjax.data.load.labels import encode, infer_task
from mmjax.data.load.scan_split import Examples, Found, Scan, joined, scan
from mmjax.data.normalize import Scale, Standardised, scale, standardised
from mmjax.data.validate import check_variety
from mmjax.types import Batch


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A source that reads and decodes its examples whenever they are wanted.

    Attributes:
      examples: where they come from.
      rows: those of them that are the source's.
      modalities: what they are padded to.
      kinds: types of their numbers.
      labels: all targets, and where they are labels; without inputs.
    """

    examples: Examples
    rows: Int[np.ndarray, " n"]
    modalities: Mapping[str, Modality]
    kinds: Mapping[str, np.dtype]
    labels: Batch

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: np.ndarray) -> Batch:
        """The examples at `indices`, in that order."""
        read = self.examples.fetch(self.rows[indices].tolist())
        labels = Arrays(self.labels).take(indices)
        return collate([e.inputs for e in read], self.modalities, self.kinds, labels)


def collate(
    inputs: Sequence[Mapping[str, np.ndarray | None]],
    modalities: Mapping[str, Modality],
    kinds: Mapping[str, np.dtype],
    labels: Batch,
) -> Batch:
    """Stacks examples, with zeros where something is missing or a sequence is shorter."""
    batch = labels._replace(inputs={}, present={}, lengths={})
    for name, spec in modalities.items():
        values = [example[name] for example in inputs]
        padded = np.zeros((len(values), *spec.shape), kinds[name])
        for row, value in zip(padded, values, strict=True):
            if value is not None:
                row[: len(value)] = value
        batch.inputs[name] = padded
        batch.present[name] = np.array([value is not None for value in values], bool)
        if spec.sequence:
            lengths = [0 if value is None else len(value) for value in values]
            batch.lengths[name] = np.array(lengths, np.int32)
    return batch


def load(
    name: str,
    splits: Mapping[str, Examples],
    *,
    modalities: Mapping[str, Modality],
    tasks: Mapping[str, Task | None],
    in_memory: bool,
    standardise: Sequence[str] | None,
    skip_unreadable: bool,
) -> Dataset:
    """Reads every example once, infers what was not given, and tells what it found.

    Args:
      name: the data set's.
      splits: the examples of each.
      modalities: what they are, except for their shapes.
      tasks: what there is to predict; None is inferred from the training split.
      in_memory: whether all examples are kept decoded; else they are read when they are wanted.
      standardise: modalities that get mean 0 and standard deviation 1 over the training split;
        None: all whose numbers are floating-point.
      skip_unreadable: whether examples that cannot be read are left out, counted and warned of.

    Raises:
      ValueError: naming the place, if an example cannot be read or does not fit.
    """
    check_sizes(name, {split: len(examples) for split, examples in splits.items()})
    sequences = [m for m, modality in modalities.items() if modality.sequence]
    scans = {
        split: scan(
            examples,
            sequences=sequences,
            keep=in_memory,
            skip_unreadable=skip_unreadable,
            measured=measure(standardise) if split == "train" else measure(()),
            title=f"Reading {name}: {split}",
        )
        for split, examples in splits.items()
    }
    skipped = _skipped(name, scans)
    check_sizes(name, {split: len(found.rows) for split, found in scans.items()})
    found = _everywhere(scans, sequences)
    modalities = {m: modalities[m]._replace(shape=f.shape) for m, f in found.items()}
    kinds = {m: f.kind for m, f in found.items()}
    known = {t: task or infer_task(t, scans["train"].targets[t]) for t, task in tasks.items()}
    scales = {m: scale(f.moments) for m, f in scans["train"].found.items() if f.moments}
    labels = {s: _labels(scans[s], known, examples) for s, examples in splits.items()}
    sources = {
        split: _in_memory(scans[split], modalities, kinds, scales, labels[split])
        if in_memory
        else _on_demand(examples, scans[split], modalities, kinds, scales, labels[split])
        for split, examples in splits.items()
    }
    data = Dataset(name, modalities, known, sources, {"skipped": skipped} if skipped else {})
    counts = {m: f.examples for m, f in scans["train"].found.items()}
    digests = {split: found.digests for split, found in scans.items()}

    def place(split: str, row: int) -> str:
        return splits[split].place(scans[split].rows[row])

    return checked(data, labels, counts, digests, place)


def checked(
    data: Dataset,
    labels: Mapping[str, Batch],
    counts: Mapping[str, int],
    digests: Mapping[str, Sequence[bytes]],
    place: Callable[[str, int], str],
) -> Dataset:
    """The data set, once its labels vary, what its splits share was told, and it was summed up.

    Args:
      data: the data set.
      labels: the targets of each split, and where they are labels.
      counts: {modality: how many training examples have it}.
      digests: fingerprints of each split's examples.
      place: tells where the row of a split is, for messages.
    """
    for split, batch in labels.items():
        check_variety(data.name, split, batch, data.tasks)
    warn_of_duplicates(data.name, digests, place)
    announce(summary(data, counts, labels["train"]))
    return data


def check_sizes(name: str, sizes: Mapping[str, int]) -> None:
    """Raises ValueError if there is no training split, or a split is empty."""
    if "train" not in sizes:
        raise ValueError(f"{name} has no split 'train', only {sorted(sizes)}.")
    for split, size in sizes.items():
        if not size:
            raise ValueError(f"The split {split!r} of {name} is empty.")


def measure(standardise: Sequence[str] | None) -> Callable[[str, np.dtype], bool]:
    """Whether a modality is standardised, by its name and the type of its numbers."""

    def measured(name: str, kind: np.dtype) -> bool:
        return np.issubdtype(kind, np.inexact) if standardise is None else name in standardise

    return measured


def check_standardise(standardise: Sequence[str] | None, modalities: Collection[str]) -> None:
    """Raises ValueError if a modality to be standardised is none of the data set's."""
    for name in standardise or ():
        if name not in modalities:
            raise ValueError(f"standardise names {name!r}; the inputs are {sorted(modalities)}.")


def _skipped(name: str, scans: Mapping[str, Scan]) -> dict[str, int]:
    """How many examples of each split were left out; a warning tells the first."""
    reasons = {split: found.skipped for split, found in scans.items() if found.skipped}
    for split, why in reasons.items():
        total = len(why) + len(scans[split].rows)
        warnings.warn(
            f"{name}: left out {len(why)} of the {total} examples of {split!r}, which cannot be "
            f"read, first: {why[0]}",
            stacklevel=2,
        )
    return {split: len(why) for split, why in reasons.items()}


def _everywhere(scans: Mapping[str, Scan], sequences: Collection[str]) -> dict[str, Found]:
    """What the splits have of each modality together."""
    total: dict[str, Found] = {}
    for split in ("train", *scans):
        for name, found in scans[split].found.items():
            if name not in total and split != "train":
                raise ValueError(f"{found.place} has modality {name!r}, but no training example.")
            before = total.get(name, found)
            total[name] = joined(name, before, found, name in sequences)
    return total


def _labels(scan: Scan, tasks: Mapping[str, Task], examples: Examples) -> Batch:
    def place(row: int) -> str:
        return examples.place(scan.rows[row])

    pairs = {t: encode(t, task, scan.targets[t], place) for t, task in tasks.items()}
    targets, labeled = ({t: pair[i] for t, pair in pairs.items()} for i in (0, 1))
    return Batch({}, {}, {}, targets, labeled)


def _in_memory(
    scan: Scan,
    modalities: Mapping[str, Modality],
    kinds: Mapping[str, np.dtype],
    scales: Mapping[str, Scale],
    labels: Batch,
) -> Source:
    batch = collate(scan.inputs, modalities, kinds, labels)
    return Arrays(standardised(batch, modalities, scales))


def _on_demand(
    examples: Examples,
    scan: Scan,
    modalities: Mapping[str, Modality],
    kinds: Mapping[str, np.dtype],
    scales: Mapping[str, Scale],
    labels: Batch,
) -> Source:
    source = Decoded(examples, np.array(scan.rows), modalities, kinds, labels)
    return Standardised(source, modalities, scales) if scales else source
