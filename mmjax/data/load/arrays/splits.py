"""Reads the arrays of a split: from a dictionary or an .npz file, as inputs and as targets."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.dataset import Task
from mmjax.data.describe.announce import announce_once
from mmjax.data.load.arrays.columns import read_column, read_mask
from mmjax.data.load.arrays.foreign_types import convert_to_numpy
from mmjax.data.load.arrays.map_scans import MapScans
from mmjax.data.load.arrays.modalities import Column
from mmjax.data.load.arrays.npz import read_npz
from mmjax.data.load.arrays.pandas_indexes import check_same_index
from mmjax.data.load.targets.target_arrays import Targets, read_targets, squeeze_targets


def load_split(
    split: str,
    part: Mapping[str, Any] | str | os.PathLike[str],
    used: Sequence[str],
    max_bytes: int,
) -> Any:
    """Loads the used arrays of a split, of a dictionary or an .npz file, as NumPy arrays.

    Raises:
      ValueError: naming the split and the array that is missing or of the wrong type.
    """
    if not isinstance(part, Mapping | str | os.PathLike):
        raise ValueError(
            f"split {split!r} is a {type(part).__name__}; it must be a dictionary of arrays or the "
            "path of an .npz file."
        )
    if not isinstance(part, Mapping):
        return read_npz(part, sorted(set(used)), max_bytes=max_bytes)
    for key in used:
        if key not in part:
            raise ValueError(f"split {split!r} has no array {key!r}, only {sorted(part)}.")
    arrays = {key: part[key] for key in used}
    check_same_index(f"split {split!r}", arrays)
    return {key: convert_to_numpy(x, f"split {split!r}: {key!r}") for key, x in arrays.items()}


def count_split_rows(split: str, part: Mapping[str, Any]) -> int:
    """Returns the number of rows, which all arrays of a split share."""
    for key, value in part.items():
        no_list = isinstance(value, str | bytes | memoryview | Mapping | set | frozenset)
        if no_list or not hasattr(value, "__len__") or getattr(value, "shape", None) == ():
            raise ValueError(
                f"split {split!r}: {key!r} is a {type(value).__name__}; it must be an array or a "
                "list with one row per example."
            )
    sizes = {key: len(value) for key, value in part.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"split {split!r} has arrays of several sizes: {sizes}.")
    return next(iter(sizes.values()))


def read_target(
    name: str, split: str, target: str, part: Mapping[str, Any], task: Task | None
) -> Targets:
    """Reads a target; one value per row in an array [n, 1] counts as [n]."""
    has_one = task is None or not (task.shape or task.kind in ("multilabel", "sequence"))
    raw = part[target]
    squeezed = squeeze_targets(raw) if has_one else raw
    if squeezed is not raw:
        announce_once(f"{name}: target {target!r} has one value per row, so (n, 1) is read as (n,)")
    return read_targets(split, target, squeezed)


def read_input(
    split: str,
    modality: str,
    part: Mapping[str, Any],
    lengths: Mapping[str, str],
    present: Mapping[str, str],
    scans: MapScans,
) -> Column:
    """Reads a modality with the arrays that say which rows are present, and how long they are."""
    mask_name, lengths_name = present.get(modality), lengths.get(modality)
    return read_column(
        split,
        modality,
        part[modality],
        None if mask_name is None else read_mask(split, mask_name, part[mask_name]),
        None if lengths_name is None else (lengths_name, part[lengths_name]),
        scans,
    )
