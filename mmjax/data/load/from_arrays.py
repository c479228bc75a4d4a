"""A data set from dictionaries of arrays, or from .npz files."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.data.kinds.point_cloud import PointCloud
from mmjax.data.limits import MAX_BYTES
from mmjax.data.load.array_columns import (
    Column,
    as_column,
    as_mask,
    kind_of,
    modality_of,
    padded,
)
from mmjax.data.load.assemble import check_sizes, check_standardise, checked, measure
from mmjax.data.load.labels import check_target_type, encode, infer_task, plain
from mmjax.data.load.npz import read_npz
from mmjax.data.load.scan_split import digest
from mmjax.data.normalize import Scale, by_feature, merged, moments, real, scale, standardised
from mmjax.data.validate import validate
from mmjax.data.value_ranges import check_same_scale, value_range
from mmjax.types import Batch

CHUNK = 1024  # examples whose statistics are taken at once

Parts = Mapping[str, Mapping[str, Any]]


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
    """A data set from arrays with one row an example.

    An input is an array [n, ...] of numbers, or a list of arrays; lists of arrays that differ in
    their first axis are sequences, and are padded. Strings are sequences of UTF-8 bytes plus 1.
    A target is an array or a list: of names, truth values or whole numbers (classes, named after
    the training split's), of floating-point numbers (a regression) or of rows of 0 and 1 (several
    labels). None, a row that is NaN all over, and a masked row are missing. What was inferred is
    printed to the error stream.

    Args:
      splits: {split: arrays by name, or the path of an .npz file}.
      inputs: names of the arrays that are modalities, or a `PointCloud` of a name.
      targets: names of the arrays that are tasks.
      lengths: {modality: name of the array of its lengths}, for sequences that are padded already.
      present: {modality: name of the array that says where it is present}.
      labeled: {task: name of the array that says where there is a label}.
      modalities: what is not to be inferred; a sequence is padded to its given length.
      tasks: what is not to be inferred.
      standardise: modalities that get mean 0 and standard deviation 1 over the training split;
        None: all whose numbers are floating-point.
      name: the data set's.
      max_bytes: the largest size of the arrays that are read of one .npz file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming the split, the array and the row of what is wrong.
    """
    lengths, present, labeled = lengths or {}, present or {}, labeled or {}
    if not inputs or not targets:
        raise ValueError("inputs and targets each need at least one array.")
    clouds = {spec.column: spec for spec in inputs if isinstance(spec, PointCloud)}
    names = [spec.column if isinstance(spec, PointCloud) else spec for spec in inputs]
    _check_distinct("inputs", names)
    _check_distinct("targets", targets)
    check_standardise(standardise, names)
    _check_keys("inputs", names, lengths=lengths, present=present, modalities=modalities or {})
    _check_keys("targets", targets, labeled=labeled, tasks=tasks or {})
    used = [*names, *targets, *lengths.values(), *present.values(), *labeled.values()]
    parts = {split: _part(split, part, used, max_bytes) for split, part in splits.items()}
    check_sizes(name, {split: _rows(split, part) for split, part in parts.items()})
    found = {
        m: {s: _column(s, m, part, lengths, present) for s, part in parts.items()} for m in names
    }
    specs = {}
    for m in names:
        is_sequence = m in lengths or m in clouds
        specs[m] = modality_of(m, found[m], is_sequence, (modalities or {}).get(m))
        if m in clouds:
            specs[m] = clouds[m].convert_modality(specs[m])
    for m, columns in found.items():
        ranges = {s: value_range(c.rows, c.here) for s, c in columns.items()}
        check_same_scale(name, m, ranges, sequence=specs[m].sequence)
    kinds = {m: kind_of(column.kind for column in found[m].values()) for m in names}
    values = {t: {s: _values(s, t, p[t]) for s, p in parts.items()} for t in targets}
    known = {t: (tasks or {}).get(t) or infer_task(t, values[t]["train"]) for t in targets}
    batches = {}
    for split, part in parts.items():
        columns = {m: found[m][split] for m in names}
        batch = _inputs(columns, specs, kinds)
        batches[split] = _with_targets(
            batch, split, part, {t: values[t][split] for t in targets}, known, labeled
        )
        validate(name, split, batches[split], specs, known)
    return _finished(name, batches, specs, known, standardise)


def _check_distinct(what: str, names: Sequence[Any]) -> None:
    for place, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(f"{what} has the name {name!r}; every name must be a string.")
        if name in names[:place]:
            raise ValueError(f"{what} names {name!r} twice; name every array once.")


def _check_keys(what: str, known: Sequence[str], **given: Mapping[str, Any]) -> None:
    for argument, mapping in given.items():
        for key in mapping:
            if key not in known:
                raise ValueError(f"{argument} names {key!r}; the {what} are {sorted(known)}.")


def _part(
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


def _rows(split: str, part: Mapping[str, Any]) -> int:
    """How many rows all arrays of a split have."""
    for key, value in part.items():
        text = isinstance(value, str | bytes | memoryview | Mapping | set | frozenset)
        if text or not hasattr(value, "__len__") or getattr(value, "shape", None) == ():
            raise ValueError(
                f"split {split!r}: {key!r} is a {type(value).__name__}; it must be an array or a "
                "list with one row per example."
            )
    sizes = {key: len(value) for key, value in part.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"split {split!r} has arrays of several sizes: {sizes}.")
    return next(iter(sizes.values()))


def _values(split: str, target: str, raw: Any) -> list[Any]:
    """A target's rows as plain Python values.

    Raises:
      ValueError: naming the split, the target and a type that cannot be predicted.
    """
    if isinstance(raw, np.ndarray) and raw.dtype != object:
        check_target_type(f"target {target!r} of split {split!r}", raw.dtype)
        return plain(raw)
    for row, v in enumerate(raw):
        if isinstance(v, np.ndarray | np.generic) and v.dtype != object:
            check_target_type(f"row {row} of {split!r}: target {target!r}", v.dtype)
    return [v.tolist() if isinstance(v, np.ndarray | np.generic) else v for v in raw]


def _column(
    split: str,
    modality: str,
    part: Mapping[str, Any],
    lengths: Mapping[str, str],
    present: Mapping[str, str],
) -> Column:
    here, ends = present.get(modality), lengths.get(modality)
    return as_column(
        split,
        modality,
        part[modality],
        None if here is None else as_mask(split, here, part[here]),
        None if ends is None else (ends, part[ends]),
    )


def _inputs(
    columns: Mapping[str, Column], specs: Mapping[str, Modality], kinds: Mapping[str, np.dtype]
) -> Batch:
    batch = Batch({}, {}, {}, {}, {})
    for m, column in columns.items():
        x, sizes = padded(column, specs[m], kinds[m])
        batch.inputs[m], batch.present[m] = x, column.here
        if specs[m].sequence:
            sizes = sizes if column.lengths is None else column.lengths
            batch.lengths[m] = np.where(column.here, sizes, 0).astype(np.int32)
    return batch


def _with_targets(
    batch: Batch,
    split: str,
    part: Mapping[str, Any],
    values: Mapping[str, list[Any]],
    tasks: Mapping[str, Task],
    labeled: Mapping[str, str],
) -> Batch:
    for t, rows in values.items():
        if t in labeled:
            mask = as_mask(split, labeled[t], part[labeled[t]])
            rows = [row if here else None for row, here in zip(rows, mask, strict=True)]
        place = _place(split)
        batch.targets[t], batch.labeled[t] = encode(t, tasks[t], rows, place)
    return batch


def _place(split: str) -> Any:
    return lambda row: f"row {row} of {split!r}"


def _finished(
    name: str,
    batches: Mapping[str, Batch],
    modalities: Mapping[str, Modality],
    tasks: Mapping[str, Task],
    standardise: Sequence[str] | None,
) -> Dataset:
    train, wanted = batches["train"], measure(standardise)
    for m in modalities:
        if not train.present[m].any():
            raise ValueError(f"{name}: no training example has modality {m!r}; leave it out.")
    scales = {
        m: _scale(train, m, spec)
        for m, spec in modalities.items()
        if wanted(m, train.inputs[m].dtype)
    }
    digests = {split: _digests(batch) for split, batch in batches.items()}
    ready = {split: Arrays(standardised(b, modalities, scales)) for split, b in batches.items()}
    return checked(
        Dataset(name, modalities, tasks, ready),
        batches,
        {m: int(here.sum()) for m, here in train.present.items()},
        digests,
        lambda split, row: _place(split)(row),
    )


def _scale(batch: Batch, modality: str, spec: Modality) -> Scale:
    x, here = batch.inputs[modality], _real(batch, modality, spec)
    total = None
    for start in range(0, len(x), CHUNK):
        cut = slice(start, start + CHUNK)
        values = by_feature(x[cut][here[cut]], spec)
        if len(values):
            total = merged(total, moments(values)) if total else moments(values)
    assert total is not None  # a training example has it
    return scale(total)


def _real(batch: Batch, modality: str, spec: Modality) -> Bool[np.ndarray, "..."]:
    return real(batch.present[modality], batch.lengths.get(modality), spec)


def _digests(batch: Batch) -> list[bytes]:
    def row(i: int) -> dict[str, np.ndarray | None]:
        return {
            m: x[i][: batch.lengths[m][i] if m in batch.lengths else None]
            if batch.present[m][i]
            else None
            for m, x in batch.inputs.items()
        }

    return [digest(row(i)) for i in range(batch.size)]
