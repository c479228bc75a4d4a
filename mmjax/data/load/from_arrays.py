"""Data sets from dictionaries of arrays, or from .npz files."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.dataset import Dataset, Modality, Task
from mmjax.data.kinds.media.point_cloud import PointCloud
from mmjax.data.limits import MAX_BYTES
from mmjax.data.load.arrays.array_plan import ArrayPlan
from mmjax.data.load.arrays.assemble_arrays import assemble_arrays
from mmjax.data.load.arrays.map_scans import MapScans, check_has_maps
from mmjax.data.load.arrays.splits import load_split
from mmjax.data.load.check_dataset import check_standardize_names
from mmjax.data.load.hints import check_splits
from mmjax.deprecation import refuse_old_arguments


@refuse_old_arguments(standardise="standardize")
def from_arrays(
    splits: Mapping[str, Mapping[str, Any] | str | os.PathLike[str]],
    inputs: Sequence[str | PointCloud],
    targets: Sequence[str],
    *,
    lengths: Mapping[str, str] | None = None,
    present: Mapping[str, str] | None = None,
    labeled: Mapping[str, str] | None = None,
    weights: Mapping[str, str] | None = None,
    modalities: Mapping[str, Modality] | None = None,
    tasks: Mapping[str, Task] | None = None,
    standardize: Sequence[str] | None = None,
    name: str = "arrays",
    scan_cache: str | os.PathLike[str] | None = None,
    max_bytes: int = MAX_BYTES,
) -> Dataset:
    """Makes a data set from arrays with one row per example.

    An input is an array [n, ...] of numbers, or a list: of arrays, which may differ in their first
    axis (sequences), or of strings. Names and whole numbers are classes, other numbers a
    regression, rows of 0 and 1 several labels. None, NaN and masked rows are missing.

    Args:
      splits: {split: arrays by name, or the path of an .npz file}.
      inputs: names of the arrays that are modalities, or a `PointCloud` of a name.
      targets: names of the arrays that are tasks.
      lengths: {modality: array of its lengths}, for sequences that are padded already.
      present: {modality: bool array that says which rows are present}.
      labeled: {task: bool array that says which rows have a label}.
      weights: {task: array of its examples' weights}; see `mmjax.data.sampling.example_weights`.
      modalities: those that are not inferred; a sequence is padded to its given length.
      tasks: those that are not inferred.
      standardize: modalities that get mean 0 and standard deviation 1 over the training split;
        None: all whose numbers are floating-point.
      name: name of the data set.
      scan_cache: folder that keeps what the pass over read-only memory maps finds.
      max_bytes: the largest total size of the arrays read from one .npz file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming the split, the array and the row of what is wrong.

    Example:
      >>> import contextlib, io
      >>> split = {"body": [[0.0], [1.0]], "note": ["a", None], "size": [0.5, 1.5]}
      >>> with contextlib.redirect_stderr(io.StringIO()):  # what was inferred is printed there
      ...     data = from_arrays({"train": split}, ["body", "note"], ["size"])
      >>> data.tasks["size"].kind, data.splits["train"].batch.lengths["note"].tolist()
      ('regression', [1, 0])
    """
    plan = ArrayPlan(inputs, targets, lengths or {}, present or {}, labeled or {}, weights or {})
    plan = plan._replace(modalities=modalities or {}, tasks=tasks or {})
    plan.check()
    check_standardize_names(standardize, plan.list_inputs())
    check_splits(splits, plan.list_inputs())
    parts = {s: load_split(s, part, plan.list_arrays(), max_bytes) for s, part in splits.items()}
    if scan_cache is not None:
        check_has_maps(parts.values(), plan.list_inputs())
    return assemble_arrays(name, parts, plan, standardize, MapScans(scan_cache))
