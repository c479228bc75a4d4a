"""Assembly of a data set from examples that are read one by one."""

import os
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mmjax.data.dataset import Dataset, Modality, Preparation, Source, Task
from mmjax.data.load.check_dataset import (
    check_and_announce,
    check_sizes,
    note_blank_examples,
    warn_of_skipped_examples,
)
from mmjax.data.load.decoded_source import DecodedInputs, make_decoded_source
from mmjax.data.load.examples import Examples
from mmjax.data.load.scan_cache import make_scan_cache
from mmjax.data.load.scan_split import (
    FileTargets,
    ModalityStats,
    SplitScan,
    merge_modality_stats,
    scan_split,
)
from mmjax.data.load.targets.complete_task import infer_or_complete_task
from mmjax.data.load.targets.labels import PlaceFormatter, encode_targets
from mmjax.data.normalize import compute_scale, find_constants, make_standardize_filter
from mmjax.data.sampling.example_weights import encode_weights
from mmjax.types import Batch


class Reading(NamedTuple):
    """How the examples of a data set are read.

    Attributes:
      in_memory: whether all examples are kept decoded; otherwise they are read on demand.
      standardize: modalities that get mean 0 and standard deviation 1 over the training split;
        None: all whose numbers are floating-point.
      skip_unreadable: whether unreadable examples are left out, with a warning.
      drop_blank_rows: whether examples without any modality are left out, with a note.
      scan_cache: folder that keeps what the pass finds; not for examples in memory.
      scan_files: files that the examples are from, for `scan_cache`.
    """

    in_memory: bool
    standardize: Sequence[str] | None
    skip_unreadable: bool
    drop_blank_rows: bool = False
    scan_cache: str | os.PathLike[str] | None = None
    scan_files: Sequence[Path] = ()


def build_dataset(
    name: str,
    splits: Mapping[str, Examples],
    *,
    modalities: Mapping[str, Modality],
    kinds: Mapping[str, tuple[Any, Mapping[str, Any]]],
    tasks: Mapping[str, Task | None],
    reading: Reading,
    weights: Mapping[str, Mapping[str, Float[np.ndarray, " n"]]] = types.MappingProxyType({}),
    facts: Mapping[str, Any] = types.MappingProxyType({}),
) -> Dataset:
    """Reads every example once, infers what was not given, and prints a summary.

    Args:
      name: name of the data set.
      splits: {split: its examples}.
      modalities: the modalities except for their shapes.
      kinds: {modality: its kind of column, if it has one, and what the kind has learned}.
      tasks: the tasks; None: inferred from the training split.
      reading: how the examples are read.
      weights: {split: {task: weights of its examples}}; see `mmjax.data.sampling.example_weights`.
      facts: what else the data set tells about itself.

    Raises:
      ValueError: naming the place, if an example cannot be read or does not fit.
    """
    check_sizes(name, {split: len(examples) for split, examples in splits.items()})
    sequences = [m for m, modality in modalities.items() if modality.sequence]
    scans = _scan_splits(name, splits, sequences, reading)

    def make_source(split: str, inputs: DecodedInputs, labels: Batch) -> Source:
        return make_decoded_source(splits[split], scans[split], inputs, labels, reading.in_memory)

    return assemble_dataset(
        name,
        scans,
        make_source,
        {split: examples.place for split, examples in splits.items()},
        modalities=modalities,
        kinds=kinds,
        tasks=tasks,
        weights=weights,
        facts=facts,
    )


def assemble_dataset(
    name: str,
    scans: Mapping[str, SplitScan],
    make_source: Callable[[str, DecodedInputs, Batch], Source],
    places: Mapping[str, PlaceFormatter],
    *,
    modalities: Mapping[str, Modality],
    kinds: Mapping[str, tuple[Any, Mapping[str, Any]]],
    tasks: Mapping[str, Task | None],
    weights: Mapping[str, Mapping[str, Float[np.ndarray, " n"]]],
    facts: Mapping[str, Any],
) -> Dataset:
    """Makes a data set of what the pass over each split has found, and prints a summary.

    Args:
      name: name of the data set.
      scans: {split: the result of the pass}.
      make_source: makes the source of a split, of its name, what is known about the inputs, and its
        targets.
      places: {split: returns where a row is, for messages}.
      modalities: the modalities except for their shapes.
      kinds: {modality: its kind of column, if it has one, and what the kind has learned}.
      tasks: the tasks; None: inferred from the training split.
      weights: {split: {task: weights of its examples}}.
      facts: what else the data set tells about itself.

    Raises:
      ValueError: naming the place, if the examples of two splits or their targets do not fit.
    """
    sequences = [m for m, modality in modalities.items() if modality.sequence]
    skipped, blank = warn_of_skipped_examples(name, scans), note_blank_examples(name, scans)
    counted = {k: v for k, v in {"skipped": skipped, "blank_rows": blank}.items() if v}
    check_sizes(name, {split: len(scan.rows) for split, scan in scans.items()})
    inputs = _learn_inputs(scans, modalities, sequences)
    all_tasks, labels, sources = {}, {}, {}
    for t, task in tasks.items():
        targets = {split: scan.targets[t] for split, scan in scans.items()}
        if task is None or not isinstance(targets["train"], FileTargets):
            task = infer_or_complete_task(t, task, targets, inputs.modalities)
        all_tasks[t] = task
    for split, scan in scans.items():
        part = weights.get(split, {})
        labels[split] = _encode_targets(scan, all_tasks, places[split], part)
        sources[split] = make_source(split, inputs, labels[split])
    prepared = {}
    for m in inputs.modalities:
        dtype = "float32" if m in inputs.scales else str(inputs.dtypes[m])
        prepared[m] = Preparation(*kinds[m], dtype, inputs.scales.get(m))
    data = Dataset(name, inputs.modalities, all_tasks, sources, {**facts, **counted}, prepared)

    def place(split: str, row: int) -> str:
        return places[split](int(scans[split].rows[row]))

    digests = {split: scan.digests for split, scan in scans.items()}
    return check_and_announce(data, labels, inputs.counts, digests, place, inputs.constants)


def _scan_splits(
    name: str, splits: Mapping[str, Examples], sequences: Collection[str], reading: Reading
) -> dict[str, SplitScan]:
    """Scans all splits; moments are measured over the training split only."""
    scans = {}
    for split, examples in splits.items():
        flags = (reading.skip_unreadable, reading.drop_blank_rows, split == "train")
        settings = (sequences, reading.standardize, *flags)
        scans[split] = scan_split(
            examples,
            sequences=sequences,
            keep=reading.in_memory,
            skip_unreadable=reading.skip_unreadable,
            drop_blank=reading.drop_blank_rows,
            measured=make_standardize_filter(reading.standardize if split == "train" else ()),
            title=f"Reading {name}: {split}",
            cache=make_scan_cache(
                reading.scan_cache, f"{name}, {split!r}", examples, settings, reading.scan_files
            ),
        )
    return scans


def _learn_inputs(
    scans: Mapping[str, SplitScan], modalities: Mapping[str, Modality], sequences: Collection[str]
) -> DecodedInputs:
    """Learns shapes from all splits, and everything else from the training split."""
    stats, train_stats = _merge_splits(scans, sequences), scans["train"].stats
    moments = {m: s.moments for m, s in train_stats.items() if s.moments}
    scales = {m: compute_scale(values) for m, values in moments.items()}
    dtypes = {}
    for m, s in stats.items():
        # Double precision is needed until the mean has been subtracted.
        is_wide = s.dtype == np.float64 and m not in scales
        dtypes[m] = np.dtype(np.float32) if is_wide else s.dtype
    return DecodedInputs(
        modalities={m: modalities[m]._replace(shape=s.shape) for m, s in stats.items()},
        dtypes=dtypes,
        scales=scales,
        constants={m: find_constants(values) for m, values in moments.items()},
        counts={m: s.examples for m, s in train_stats.items()},
    )


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
    place_row: PlaceFormatter,
    weights: Mapping[str, Float[np.ndarray, " n"]],
) -> Batch:
    def place(row: int) -> str:
        return place_row(int(scan.rows[row]))

    batch, encoded = Batch({}, {}, {}, {}, {}), {}
    for t, task in tasks.items():
        found = scan.targets[t]
        is_encoded = isinstance(found, FileTargets)
        batch.targets[t], batch.labeled[t] = (
            found if is_encoded else encode_targets(t, task, found, place)
        )
        if t in weights:
            numbers = weights[t][scan.rows]
            encoded[t] = encode_weights(t, numbers, batch.labeled[t], place)
    return batch._replace(weights=encoded)
