"""Data sets from dictionaries of arrays, or from .npz files."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.checks.duplicates import hash_examples
from mmjax.data.checks.validate import validate_split
from mmjax.data.checks.value_ranges import check_same_scale, measure_value_range
from mmjax.data.dataset import Dataset, Modality, Preparation, Task
from mmjax.data.kinds.media.point_cloud import PointCloud
from mmjax.data.limits import MAX_BYTES
from mmjax.data.load.arrays.columns import read_mask
from mmjax.data.load.arrays.modalities import Column, choose_common_dtype, infer_modality, pad_rows
from mmjax.data.load.arrays.splits import count_split_rows, load_split, read_input, read_target
from mmjax.data.load.check_dataset import check_and_announce, check_sizes, check_standardize_names
from mmjax.data.load.hints import check_splits, note_unusual_task, warn_about_inputs_as_targets
from mmjax.data.load.targets.target_arrays import (
    Targets,
    encode_target_array,
    infer_task_of_targets,
    mask_targets,
)
from mmjax.data.mapped_arrays import make_array_source
from mmjax.data.normalize import (
    compute_scale_by_chunks,
    make_standardize_filter,
    make_validity_mask,
)
from mmjax.data.sampling.example_weights import (
    check_weight_names,
    encode_weights,
    read_weight_array,
)
from mmjax.deprecation import refuse_old_arguments
from mmjax.types import Batch


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
    max_bytes: int = MAX_BYTES,
) -> Dataset:
    """Makes a data set from arrays with one row per example.

    An input is an array [n, ...] of numbers, or a list of arrays; lists of arrays that differ in
    their first axis are sequences, and are padded. Strings are sequences of UTF-8 bytes plus 1.
    A target is an array or a list: of names, truth values or whole numbers (classes, named after
    the training split's), of floating-point numbers (a regression) or of rows of 0 and 1 (several
    labels). None, a row that is all NaN, and a masked row are missing. Arrays and columns of JAX,
    pandas, polars, PyArrow and PyTorch are taken for their values. Memory maps stay on disk: their
    rows are read when a batch needs them. What was inferred is printed to the standard error
    stream.

    Args:
      splits: {split: arrays by name, or the path of an .npz file}.
      inputs: names of the arrays that are modalities, or a `PointCloud` of a name.
      targets: names of the arrays that are tasks.
      lengths: {modality: name of the array of its lengths}, for sequences that are padded already.
      present: {modality: name of the bool array that says which rows are present}.
      labeled: {task: name of the bool array that says which rows have a label}.
      weights: {task: name of the array of its examples' weights}; see
        `mmjax.data.sampling.example_weights`.
      modalities: those that are not inferred; a sequence is padded to its given length.
      tasks: those that are not inferred.
      standardize: modalities that get mean 0 and standard deviation 1 over the training split;
        None: all whose numbers are floating-point.
      name: name of the data set.
      max_bytes: the largest total size of the arrays read from one .npz file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming the split, the array and the row of what is wrong.

    Example:
      >>> import contextlib, io
      >>> split = {"body": np.eye(3), "note": ["a", None, "abc"], "size": [0.5, 1.5, 2.5]}
      >>> with contextlib.redirect_stderr(io.StringIO()):  # what was inferred is printed there
      ...     data = from_arrays({"train": split}, inputs=["body", "note"], targets=["size"])
      >>> data.tasks["size"].kind, data.splits["train"].batch.lengths["note"].tolist()
      ('regression', [1, 0, 3])
    """
    lengths, present, labeled, weights = lengths or {}, present or {}, labeled or {}, weights or {}
    modalities, tasks = modalities or {}, tasks or {}
    if not inputs or not targets:
        raise ValueError("inputs and targets each need at least one array.")
    clouds = {spec.column: spec for spec in inputs if isinstance(spec, PointCloud)}
    names = [spec.column if isinstance(spec, PointCloud) else spec for spec in inputs]
    _check_distinct("inputs", names)
    _check_distinct("targets", targets)
    check_standardize_names(standardize, names)
    _check_known_keys("inputs", names, lengths=lengths, present=present, modalities=modalities)
    _check_known_keys("targets", targets, labeled=labeled, tasks=tasks)
    check_weight_names(weights, targets)
    check_splits(splits, names)
    masks = [*lengths.values(), *present.values(), *labeled.values()]
    used = [*names, *targets, *masks, *weights.values()]
    parts = {split: load_split(split, part, used, max_bytes) for split, part in splits.items()}
    check_sizes(name, {split: count_split_rows(split, part) for split, part in parts.items()})
    warn_about_inputs_as_targets(name, {m: (m,) for m in names}, {t: (t,) for t in targets})
    columns: dict[str, dict[str, Column]] = {}
    for m in names:
        columns[m] = {s: read_input(s, m, part, lengths, present) for s, part in parts.items()}
    specs = _infer_modalities(columns, lengths, clouds, modalities)
    _check_same_scales(name, columns, specs)
    values: dict[str, dict[str, Targets]] = {}
    for t in targets:
        values[t] = {s: read_target(name, s, t, part, tasks.get(t)) for s, part in parts.items()}
    all_tasks = {t: infer_task_of_targets(t, tasks.get(t), values[t], specs) for t in targets}
    batches = {split: Batch({}, {}, {}, {}, {}) for split in parts}
    for m in names:
        _add_input(batches, m, columns[m], specs[m])
    for split, part in parts.items():
        rows = {t: by_split[split] for t, by_split in values.items()}
        batches[split] = _add_targets(
            split, batches[split], part, rows, all_tasks, labeled, weights
        )
        validate_split(name, split, batches[split], specs, all_tasks)
    for t in set(targets) - tasks.keys():
        note_unusual_task(name, t, all_tasks[t], batches["train"])
    dtypes = {m: choose_common_dtype(c.dtype for c in columns[m].values()) for m in names}
    prepared = {m: Preparation(kind=clouds.get(m), lengths=lengths.get(m)) for m in specs}
    return _finish_dataset(name, batches, specs, all_tasks, dtypes, standardize, prepared)


def _check_distinct(what: str, names: Sequence[Any]) -> None:
    for i, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(f"{what} has the name {name!r}; every name must be a string.")
        if name in names[:i]:
            raise ValueError(f"{what} names {name!r} twice; name every array once.")


def _check_known_keys(what: str, names: Sequence[str], **mappings: Mapping[str, Any]) -> None:
    for argument, mapping in mappings.items():
        for key in mapping:
            if key not in names:
                raise ValueError(f"{argument} names {key!r}; the {what} are {sorted(names)}.")


def _infer_modalities(
    columns: Mapping[str, Mapping[str, Column]],
    lengths: Mapping[str, str],
    clouds: Mapping[str, PointCloud],
    given: Mapping[str, Modality],
) -> dict[str, Modality]:
    specs = {}
    for m, by_split in columns.items():
        specs[m] = infer_modality(m, by_split, m in lengths or m in clouds, given.get(m))
        if m in clouds:
            specs[m] = clouds[m].convert_modality(specs[m])
    return specs


def _check_same_scales(
    name: str, columns: Mapping[str, Mapping[str, Column]], specs: Mapping[str, Modality]
) -> None:
    """Refuses splits whose numbers have different scales, such as 0 to 1 and 0 to 255."""
    for m, by_split in columns.items():
        ranges = {s: measure_value_range(c.rows, c.present) for s, c in by_split.items()}
        check_same_scale(name, m, ranges, sequence=specs[m].sequence)


def _add_input(
    batches: Mapping[str, Batch], modality: str, columns: Mapping[str, Column], spec: Modality
) -> None:
    """Adds a modality to the batches of all splits, as it was given except for padding."""
    for split, column in columns.items():
        x, sizes = pad_rows(column, spec)
        batches[split].inputs[modality], batches[split].present[modality] = x, column.present
        if spec.sequence:
            sizes = sizes if column.lengths is None else column.lengths
            batches[split].lengths[modality] = np.where(column.present, sizes, 0).astype(np.int32)


def _add_targets(
    split: str,
    batch: Batch,
    part: Mapping[str, Any],
    targets: Mapping[str, Targets],
    tasks: Mapping[str, Task],
    labeled: Mapping[str, str],
    weights: Mapping[str, str],
) -> Batch:
    """Adds the encoded targets of a split, and the weights of its examples."""
    place, encoded = _make_place_formatter(split), {}
    for t, task in tasks.items():
        rows = targets[t]
        if t in labeled:
            rows = mask_targets(rows, read_mask(split, labeled[t], part[labeled[t]]))
        batch.targets[t], batch.labeled[t] = encode_target_array(t, task, rows, place)
    for t, array in weights.items():
        numbers = read_weight_array(split, array, part[array])
        encoded[t] = encode_weights(t, numbers, batch.labeled[t], place)
    return batch._replace(weights=encoded)


def _make_place_formatter(split: str) -> Any:
    return lambda row: f"row {row} of {split!r}"


def _finish_dataset(
    name: str,
    batches: Mapping[str, Batch],
    modalities: Mapping[str, Modality],
    tasks: Mapping[str, Task],
    dtypes: Mapping[str, np.dtype],
    standardize: Sequence[str] | None,
    preparations: Mapping[str, Preparation],
) -> Dataset:
    train, is_standardized = batches["train"], make_standardize_filter(standardize)
    scales, constants, counts = {}, {}, {}
    for m in modalities:
        counts[m] = int(train.present[m].sum())
        if not counts[m]:
            raise ValueError(f"{name}: no training example has modality {m!r}; leave it out.")
    for m, spec in modalities.items():
        if is_standardized(m, dtypes[m]):
            is_real = make_validity_mask(train.present[m], train.lengths.get(m), spec)
            scales[m], constants[m] = compute_scale_by_chunks(train.inputs[m], is_real, spec)
    digests, sources = {}, {}
    for split, batch in batches.items():
        sources[split] = make_array_source(batch, modalities, scales, dtypes)
        digests[split] = hash_examples(sources[split], modalities)
    prepared = {}
    for m, p in preparations.items():
        dtype = "float32" if m in scales else str(dtypes[m])
        prepared[m] = p._replace(dtype=dtype, scale=scales.get(m))
    data = Dataset(name, modalities, tasks, sources, preparations=prepared)
    return check_and_announce(
        data,
        batches,
        counts,
        digests,
        lambda split, row: _make_place_formatter(split)(row),
        constants,
    )
