"""Data sets from dictionaries of arrays, or from .npz files."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.dataset import Arrays, Dataset, Modality, Preparation, Task
from mmjax.data.kinds.point_cloud import PointCloud
from mmjax.data.limits import MAX_BYTES
from mmjax.data.load.array_columns import (
    Column,
    choose_common_dtype,
    infer_modality,
    pad_rows,
    read_column,
    read_mask,
)
from mmjax.data.load.assemble import (
    check_and_announce,
    check_sizes,
    check_standardize_names,
    make_standardize_filter,
)
from mmjax.data.load.complete_task import infer_or_complete_task
from mmjax.data.load.labels import check_target_type, convert_to_python, encode_targets
from mmjax.data.load.npz import read_npz
from mmjax.data.load.scan_split import hash_inputs
from mmjax.data.normalize import (
    Scale,
    compute_moments,
    compute_scale,
    make_validity_mask,
    merge_moments,
    reshape_to_features,
    standardize_batch,
)
from mmjax.data.validate import validate_split
from mmjax.data.value_ranges import check_same_scale, measure_value_range
from mmjax.types import Batch

_CHUNK_EXAMPLES = 1024  # examples whose statistics are computed at once

_Parts = Mapping[str, Mapping[str, Any]]


def from_arrays(
    splits: Mapping[str, Mapping[str, Any] | str | os.PathLike[str]],
    inputs: Sequence[str | PointCloud],
    targets: Sequence[str],
    *,
    lengths: Mapping[str, str] | None = None,
    present: Mapping[str, str] | None = None,
    labeled: Mapping[str, str] | None = None,
    modalities: Mapping[str, Modality] | None = None,
    tasks: Mapping[str, Task] | None = None,
    standardise: Sequence[str] | None = None,
    name: str = "arrays",
    max_bytes: int = MAX_BYTES,
) -> Dataset:
    """Makes a data set from arrays with one row per example.

    An input is an array [n, ...] of numbers, or a list of arrays; lists of arrays that differ in
    their first axis are sequences, and are padded. Strings are sequences of UTF-8 bytes plus 1.
    A target is an array or a list: of names, truth values or whole numbers (classes, named after
    the training split's), of floating-point numbers (a regression) or of rows of 0 and 1 (several
    labels). None, a row that is all NaN, and a masked row are missing. What was inferred is
    printed to the standard error stream.

    Args:
      splits: {split: arrays by name, or the path of an .npz file}.
      inputs: names of the arrays that are modalities, or a `PointCloud` of a name.
      targets: names of the arrays that are tasks.
      lengths: {modality: name of the array of its lengths}, for sequences that are padded already.
      present: {modality: name of the bool array that says which rows are present}.
      labeled: {task: name of the bool array that says which rows have a label}.
      modalities: those that are not inferred; a sequence is padded to its given length.
      tasks: those that are not inferred.
      standardise: modalities that get mean 0 and standard deviation 1 over the training split;
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
    lengths, present, labeled = lengths or {}, present or {}, labeled or {}
    if not inputs or not targets:
        raise ValueError("inputs and targets each need at least one array.")
    clouds = {spec.column: spec for spec in inputs if isinstance(spec, PointCloud)}
    names = [spec.column if isinstance(spec, PointCloud) else spec for spec in inputs]
    _check_distinct("inputs", names)
    _check_distinct("targets", targets)
    check_standardize_names(standardise, names)
    _check_known_keys(
        "inputs", names, lengths=lengths, present=present, modalities=modalities or {}
    )
    _check_known_keys("targets", targets, labeled=labeled, tasks=tasks or {})
    used = [*names, *targets, *lengths.values(), *present.values(), *labeled.values()]
    parts = {split: _load_split(split, part, used, max_bytes) for split, part in splits.items()}
    check_sizes(name, {split: _count_rows(split, part) for split, part in parts.items()})
    batches = {split: Batch({}, {}, {}, {}, {}) for split in parts}
    all_columns: dict[str, dict[str, Column]] = {}
    specs: dict[str, Modality] = {}
    # All modalities are read and inferred before one is compared or padded.
    for m in names:
        all_columns[m] = {
            s: _read_input_column(s, m, part, lengths, present) for s, part in parts.items()
        }
    for m, columns in all_columns.items():
        is_sequence = m in lengths or m in clouds
        specs[m] = infer_modality(m, columns, is_sequence, (modalities or {}).get(m))
        if m in clouds:
            specs[m] = clouds[m].convert_modality(specs[m])
    for m, columns in all_columns.items():
        ranges = {
            s: measure_value_range(column.rows, column.present) for s, column in columns.items()
        }
        check_same_scale(name, m, ranges, sequence=specs[m].sequence)
    values = {t: {s: _read_target_values(s, t, p[t]) for s, p in parts.items()} for t in targets}
    all_tasks = {
        t: infer_or_complete_task(t, (tasks or {}).get(t), values[t], specs) for t in targets
    }
    for m, columns in all_columns.items():
        _add_input(batches, m, columns, specs[m])
    for split, part in parts.items():
        for t, task in all_tasks.items():
            rows = _mask_rows(split, part, values[t][split], labeled.get(t))
            encoded = encode_targets(t, task, rows, _make_place_formatter(split))
            batches[split].targets[t], batches[split].labeled[t] = encoded
        validate_split(name, split, batches[split], specs, all_tasks)
    prepared = {m: Preparation(kind=clouds.get(m), lengths=lengths.get(m)) for m in specs}
    return _finish_dataset(name, batches, specs, all_tasks, standardise, prepared)


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


def _load_split(
    split: str,
    part: Mapping[str, Any] | str | os.PathLike[str],
    used: Sequence[str],
    max_bytes: int,
) -> Any:
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
    return {key: part[key] for key in used}


def _count_rows(split: str, part: Mapping[str, Any]) -> int:
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


def _read_target_values(split: str, target: str, raw: Any) -> list[Any]:
    """Returns the rows of a target as Python values.

    Raises:
      ValueError: naming the split, the target and a type that cannot be predicted.
    """
    if isinstance(raw, np.ndarray) and raw.dtype != object:
        check_target_type(f"target {target!r} of split {split!r}", raw.dtype)
        return convert_to_python(raw)
    for row, v in enumerate(raw):
        if isinstance(v, np.ndarray | np.generic) and v.dtype != object:
            check_target_type(f"row {row} of {split!r}: target {target!r}", v.dtype)
    return [v.tolist() if isinstance(v, np.ndarray | np.generic) else v for v in raw]


def _read_input_column(
    split: str,
    modality: str,
    part: Mapping[str, Any],
    lengths: Mapping[str, str],
    present: Mapping[str, str],
) -> Column:
    mask_name, lengths_name = present.get(modality), lengths.get(modality)
    return read_column(
        split,
        modality,
        part[modality],
        None if mask_name is None else read_mask(split, mask_name, part[mask_name]),
        None if lengths_name is None else (lengths_name, part[lengths_name]),
    )


def _add_input(
    batches: Mapping[str, Batch], modality: str, columns: Mapping[str, Column], spec: Modality
) -> None:
    """Adds a modality to the batches of all splits, in one dtype."""
    dtype = choose_common_dtype(column.dtype for column in columns.values())
    for split, column in columns.items():
        x, sizes = pad_rows(column, spec, dtype)
        batches[split].inputs[modality], batches[split].present[modality] = x, column.present
        if spec.sequence:
            sizes = sizes if column.lengths is None else column.lengths
            batches[split].lengths[modality] = np.where(column.present, sizes, 0).astype(np.int32)


def _mask_rows(
    split: str, part: Mapping[str, Any], rows: list[Any], mask_name: str | None
) -> list[Any]:
    """Replaces the labels that a mask excludes by None."""
    if mask_name is None:
        return rows
    mask = read_mask(split, mask_name, part[mask_name])
    return [row if is_labeled else None for row, is_labeled in zip(rows, mask, strict=True)]


def _make_place_formatter(split: str) -> Any:
    return lambda row: f"row {row} of {split!r}"


def _finish_dataset(
    name: str,
    batches: Mapping[str, Batch],
    modalities: Mapping[str, Modality],
    tasks: Mapping[str, Task],
    standardise: Sequence[str] | None,
    preparations: Mapping[str, Preparation],
) -> Dataset:
    train, is_standardized = batches["train"], make_standardize_filter(standardise)
    scales, counts = {}, {}
    for m in modalities:
        counts[m] = int(train.present[m].sum())
        if not counts[m]:
            raise ValueError(f"{name}: no training example has modality {m!r}; leave it out.")
    for m, spec in modalities.items():
        if is_standardized(m, train.inputs[m].dtype):
            scales[m] = _fit_scale(train, m, spec)
    digests, sources = {}, {}
    for split, batch in batches.items():
        digests[split] = _hash_examples(batch)
        sources[split] = Arrays(standardize_batch(batch, modalities, scales))
    dtypes = {m: str(x.dtype) for m, x in sources["train"].batch.inputs.items()}
    prepared = {
        m: p._replace(dtype=dtypes[m], scale=scales.get(m)) for m, p in preparations.items()
    }
    data = Dataset(name, modalities, tasks, sources, preparations=prepared)
    return check_and_announce(
        data, batches, counts, digests, lambda split, row: _make_place_formatter(split)(row)
    )


def _fit_scale(batch: Batch, modality: str, spec: Modality) -> Scale:
    """Returns the scale of the values that are neither missing nor padding."""
    x = batch.inputs[modality]
    is_real = make_validity_mask(batch.present[modality], batch.lengths.get(modality), spec)
    total = None
    for start in range(0, len(x), _CHUNK_EXAMPLES):
        chunk = slice(start, start + _CHUNK_EXAMPLES)
        values = reshape_to_features(x[chunk][is_real[chunk]], spec)
        if len(values):
            total = (
                merge_moments(total, compute_moments(values)) if total else compute_moments(values)
            )
    assert total is not None  # at least one training example has the modality
    return compute_scale(total)


def _hash_examples(batch: Batch) -> list[bytes]:
    digests = []
    for i in range(batch.size):
        inputs: dict[str, np.ndarray | None] = {}
        for m, x in batch.inputs.items():
            end = batch.lengths[m][i] if m in batch.lengths else None
            inputs[m] = x[i][:end] if batch.present[m][i] else None
        digests.append(hash_inputs(inputs))
    return digests
