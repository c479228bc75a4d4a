"""Assembly of a data set from examples that are read one by one."""

import dataclasses
import os
import types
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.data.checks.duplicates import Digests, warn_about_duplicates
from mmjax.data.checks.leaks import warn_about_giveaways
from mmjax.data.checks.unknown_tokens import describe_unknown_tokens
from mmjax.data.checks.validate import check_label_variety
from mmjax.data.dataset import Arrays, Dataset, Modality, Preparation, Source, Task
from mmjax.data.describe.announce import announce_once, summarize_dataset
from mmjax.data.load.scan_cache import make_scan_cache
from mmjax.data.load.scan_split import (
    Examples,
    ModalityStats,
    SplitScan,
    merge_modality_stats,
    scan_split,
)
from mmjax.data.load.targets.complete_task import infer_or_complete_task
from mmjax.data.load.targets.labels import encode_targets
from mmjax.data.normalize import (
    Scale,
    StandardizedSource,
    compute_scale,
    find_constants,
    standardize_batch,
)
from mmjax.data.sampling.example_weights import encode_weights
from mmjax.masks import pad_ragged
from mmjax.types import Batch


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A source that reads and decodes its examples on demand.

    Attributes:
      examples: all examples of the split.
      rows: the numbers of the examples that the source has.
      modalities: what the inputs are padded to.
      kinds: {modality: type of its numbers}.
      labels: the targets and label masks of all rows; no inputs.
    """

    examples: Examples
    rows: Int[np.ndarray, " n"]
    modalities: Mapping[str, Modality]
    kinds: Mapping[str, np.dtype]
    labels: Batch

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: np.ndarray) -> Batch:
        """Returns the examples at `indices`, in that order."""
        examples = self.examples.fetch(self.rows[indices].tolist())
        labels = Arrays(self.labels).take(indices)
        return stack_examples([e.inputs for e in examples], self.modalities, self.kinds, labels)


def stack_examples(
    inputs: Sequence[Mapping[str, np.ndarray | None]],
    modalities: Mapping[str, Modality],
    kinds: Mapping[str, np.dtype],
    labels: Batch,
) -> Batch:
    """Stacks examples to a batch; missing modalities and padding become zeros."""
    batch = labels._replace(inputs={}, present={}, lengths={})
    for name, spec in modalities.items():
        values = [example[name] for example in inputs]
        batch.inputs[name] = pad_ragged(values, spec.shape, kinds[name])
        batch.present[name] = np.array([value is not None for value in values], bool)
        if spec.sequence:
            lengths = [0 if value is None else len(value) for value in values]
            batch.lengths[name] = np.array(lengths, np.int32)
    return batch


def build_dataset(
    name: str,
    splits: Mapping[str, Examples],
    *,
    modalities: Mapping[str, Modality],
    kinds: Mapping[str, tuple[Any, Mapping[str, Any]]],
    tasks: Mapping[str, Task | None],
    in_memory: bool,
    standardise: Sequence[str] | None,
    skip_unreadable: bool,
    weights: Mapping[str, Mapping[str, Float[np.ndarray, " n"]]] = types.MappingProxyType({}),
    drop_blank_rows: bool = False,
    facts: Mapping[str, Any] = types.MappingProxyType({}),
    scan_cache: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Reads every example once, infers what was not given, and prints a summary.

    Args:
      name: name of the data set.
      splits: {split: its examples}.
      modalities: the modalities except for their shapes.
      kinds: {modality: its kind of column, if it has one, and what the kind has learned}.
      tasks: the tasks; None: inferred from the training split.
      in_memory: whether all examples are kept decoded; otherwise they are read on demand.
      standardise: modalities that get mean 0 and standard deviation 1 over the training split;
        None: all whose numbers are floating-point.
      skip_unreadable: whether unreadable examples are left out, with a warning.
      weights: {split: {task: weights of its examples}}; see `mmjax.data.sampling.example_weights`.
      drop_blank_rows: whether examples without any modality are left out, with a note.
      facts: what else the data set tells about itself.
      scan_cache: folder that keeps what the pass finds; not for examples in memory.

    Raises:
      ValueError: naming the place, if an example cannot be read or does not fit.
    """
    check_sizes(name, {split: len(examples) for split, examples in splits.items()})
    sequences = [m for m, modality in modalities.items() if modality.sequence]
    scans = {
        split: scan_split(
            examples,
            sequences=sequences,
            keep=in_memory,
            skip_unreadable=skip_unreadable,
            drop_blank=drop_blank_rows,
            measured=make_standardize_filter(standardise)
            if split == "train"
            else make_standardize_filter(()),
            title=f"Reading {name}: {split}",
            cache=make_scan_cache(
                scan_cache,
                f"{name}, split {split!r}",
                examples,
                (sequences, standardise, skip_unreadable, drop_blank_rows, split == "train"),
            ),
        )
        for split, examples in splits.items()
    }
    skipped, blank = _warn_of_skipped_examples(name, scans), _note_blank_examples(name, scans)
    check_sizes(name, {split: len(result.rows) for split, result in scans.items()})
    # Shapes come from all splits, everything else that is learned from the training split.
    stats, train_stats = _merge_splits(scans, sequences), scans["train"].stats
    modalities = {m: modalities[m]._replace(shape=s.shape) for m, s in stats.items()}
    moments = {m: s.moments for m, s in train_stats.items() if s.moments}
    scales = {m: compute_scale(values) for m, values in moments.items()}
    constants = {m: find_constants(values) for m, values in moments.items()}
    # Double precision is needed until the mean has been subtracted.
    wide = np.dtype(np.float64)
    dtypes = {
        m: np.dtype(np.float32) if s.dtype == wide and m not in scales else s.dtype
        for m, s in stats.items()
    }
    counts = {m: s.examples for m, s in train_stats.items()}
    all_tasks = {}
    for t, task in tasks.items():
        values = {split: scan.targets[t] for split, scan in scans.items()}
        all_tasks[t] = infer_or_complete_task(t, task, values, modalities)
    labels, sources, digests = {}, {}, {}
    for split, examples in splits.items():
        part = weights.get(split, {})
        labels[split] = _encode_targets(scans[split], all_tasks, examples, part)
    for split, examples in splits.items():
        arguments = (scans[split], modalities, dtypes, scales, labels[split])
        sources[split] = (
            _make_memory_source(*arguments)
            if in_memory
            else _make_decoding_source(examples, *arguments)
        )
        digests[split] = scans[split].digests
    preparations = {
        m: Preparation(
            *kinds[m], str(np.dtype(np.float32) if m in scales else dtypes[m]), scales.get(m)
        )
        for m in modalities
    }
    counted = {"skipped": skipped, "blank_rows": blank}
    facts = dict(facts) | {what: counts for what, counts in counted.items() if counts}
    data = Dataset(name, modalities, all_tasks, sources, facts, preparations)

    def place(split: str, row: int) -> str:
        return splits[split].place(scans[split].rows[row])

    return check_and_announce(data, labels, counts, digests, place, constants)


def check_and_announce(
    data: Dataset,
    labels: Mapping[str, Batch],
    counts: Mapping[str, int],
    digests: Mapping[str, Digests],
    place: Callable[[str, int], str],
    constants: Mapping[str, Bool[np.ndarray, " d"]],
) -> Dataset:
    """Checks the labels, warns of examples that several splits share, and prints a summary.

    Args:
      data: the data set, which is returned.
      labels: {split: its targets and label masks}.
      counts: {modality: number of training examples that have it}.
      digests: {split: hashes of its examples}.
      place: formats the location of a row (its split and index), for messages.
      constants: {modality: which of its features have one value in all training examples}.

    Raises:
      ValueError: if a task has labels of fewer than two classes.
    """
    for split, batch in labels.items():
        check_label_variety(data.name, split, batch, data.tasks)
    warn_about_duplicates(data.name, digests, place)
    warn_about_giveaways(data)
    summary = summarize_dataset(data, counts, labels["train"], constants)
    announce_once("\n".join([summary, *describe_unknown_tokens(data)]))
    return data


def check_sizes(name: str, sizes: Mapping[str, int]) -> None:
    """Raises ValueError if the training split is missing, or a split is empty."""
    if "train" not in sizes:
        raise ValueError(f"{name} has no split 'train', only {sorted(sizes)}.")
    for split, size in sizes.items():
        if not size:
            raise ValueError(f"The split {split!r} of {name} is empty.")


def make_standardize_filter(standardise: Sequence[str] | None) -> Callable[[str, np.dtype], bool]:
    """Makes the function that decides by name and dtype whether a modality is standardized.

    Example:
      >>> make_standardize_filter(None)("image", np.dtype(np.uint8))
      False
    """

    def is_standardized(name: str, dtype: np.dtype) -> bool:
        return np.issubdtype(dtype, np.inexact) if standardise is None else name in standardise

    return is_standardized


def check_standardize_names(standardise: Sequence[str] | None, modalities: Collection[str]) -> None:
    """Raises ValueError if a modality to be standardized is not in the data set."""
    for name in standardise or ():
        if name not in modalities:
            raise ValueError(f"standardise names {name!r}; the inputs are {sorted(modalities)}.")


def _warn_of_skipped_examples(name: str, scans: Mapping[str, SplitScan]) -> dict[str, int]:
    """Counts the skipped examples of each split; a warning names the first."""
    counts = {}
    for split, result in scans.items():
        if result.skipped:
            counts[split] = len(result.skipped)
            total = counts[split] + len(result.rows)
            warnings.warn(
                f"{name}: left out {counts[split]} of the {total} examples of {split!r}, which "
                f"cannot be read, first: {result.skipped[0]}",
                stacklevel=2,
            )
    return counts


def _note_blank_examples(name: str, scans: Mapping[str, SplitScan]) -> dict[str, int]:
    """Counts the examples of each split that are left out as they have no modality."""
    counts = {split: len(scan.blank) for split, scan in scans.items() if scan.blank}
    if counts:
        listed = ", ".join(f"{count} of {split!r}" for split, count in counts.items())
        announce_once(f"{name}: dropped rows without any input: {listed}")
    return counts


def _merge_splits(
    scans: Mapping[str, SplitScan], sequences: Collection[str]
) -> dict[str, ModalityStats]:
    """Merges the statistics of each modality over all splits."""
    total: dict[str, ModalityStats] = {}
    # The training split comes first, so that it decides the dtypes.
    for split in ("train", *scans):
        for name, stats in scans[split].stats.items():
            if name not in total and split != "train":
                raise ValueError(
                    f"{stats.place} has modality {name!r}, but no training example does."
                )
            total[name] = merge_modality_stats(
                name, total.get(name, stats), stats, name in sequences
            )
    return total


def _encode_targets(
    scan: SplitScan,
    tasks: Mapping[str, Task],
    examples: Examples,
    weights: Mapping[str, Float[np.ndarray, " n"]],
) -> Batch:
    def place(row: int) -> str:
        return examples.place(scan.rows[row])

    batch, encoded = Batch({}, {}, {}, {}, {}), {}
    for t, task in tasks.items():
        batch.targets[t], batch.labeled[t] = encode_targets(t, task, scan.targets[t], place)
        if t in weights:
            numbers = weights[t][scan.rows]
            encoded[t] = encode_weights(t, numbers, batch.labeled[t], place)
    return batch._replace(weights=encoded)


def _make_memory_source(
    scan: SplitScan,
    modalities: Mapping[str, Modality],
    dtypes: Mapping[str, np.dtype],
    scales: Mapping[str, Scale],
    labels: Batch,
) -> Source:
    batch = stack_examples(scan.inputs, modalities, dtypes, labels)
    return Arrays(standardize_batch(batch, modalities, scales))


def _make_decoding_source(
    examples: Examples,
    scan: SplitScan,
    modalities: Mapping[str, Modality],
    dtypes: Mapping[str, np.dtype],
    scales: Mapping[str, Scale],
    labels: Batch,
) -> Source:
    source = Decoded(examples, np.array(scan.rows), modalities, dtypes, labels)
    return StandardizedSource(source, modalities, scales) if scales else source
