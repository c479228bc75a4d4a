"""Checks that every way of loading a data set makes, and the summary that it prints."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from mmjax.data.checks.duplicates import Digests, warn_about_duplicates
from mmjax.data.checks.leaks import warn_about_giveaways
from mmjax.data.checks.unknown_tokens import describe_unknown_tokens
from mmjax.data.checks.validate import check_label_variety
from mmjax.data.dataset import Dataset
from mmjax.data.describe.announce import announce_once, summarize_dataset
from mmjax.data.load.scan_split import SplitScan
from mmjax.types import Batch


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


def check_standardize_names(standardize: Sequence[str] | None, modalities: Collection[str]) -> None:
    """Raises ValueError if a modality to be standardized is not in the data set."""
    for name in standardize or ():
        if name not in modalities:
            raise ValueError(f"standardize names {name!r}; the inputs are {sorted(modalities)}.")


def warn_of_skipped_examples(name: str, scans: Mapping[str, SplitScan]) -> dict[str, int]:
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


def note_blank_examples(name: str, scans: Mapping[str, SplitScan]) -> dict[str, int]:
    """Counts the examples of each split that are left out as they have no modality."""
    counts = {split: len(scan.blank) for split, scan in scans.items() if scan.blank}
    if counts:
        listed = ", ".join(f"{count} of {split!r}" for split, count in counts.items())
        announce_once(f"{name}: dropped rows without any input: {listed}")
    return counts
