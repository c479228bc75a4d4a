"""Assembly of a data set from the arrays of its splits."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.checks.duplicates import Digests, hash_modality
from mmjax.data.checks.validate import validate_split
from mmjax.data.checks.validate_inputs import check_values
from mmjax.data.checks.value_ranges import check_same_scale, measure_value_range
from mmjax.data.dataset import Arrays, Dataset, Modality, Preparation, Task
from mmjax.data.kinds.media.point_cloud import PointCloud
from mmjax.data.load.arrays.array_plan import ArrayPlan
from mmjax.data.load.arrays.columns import read_mask
from mmjax.data.load.arrays.map_scans import MapScans
from mmjax.data.load.arrays.modalities import Column, choose_common_dtype, infer_modality, pad_rows
from mmjax.data.load.arrays.splits import count_split_rows, read_input, read_target
from mmjax.data.load.check_dataset import check_and_announce, check_sizes
from mmjax.data.load.hints import note_unusual_task, warn_about_inputs_as_targets
from mmjax.data.load.targets.target_arrays import (
    Targets,
    encode_target_array,
    infer_task_of_targets,
    mask_targets,
)
from mmjax.data.mapped_arrays import MappedArrays, make_array_source, select_input
from mmjax.data.normalize import (
    Scale,
    compute_scale_by_chunks,
    make_standardize_filter,
    make_validity_mask,
)
from mmjax.data.sampling.example_weights import encode_weights, read_weight_array
from mmjax.types import Batch


def assemble_arrays(
    name: str,
    parts: Mapping[str, Mapping[str, Any]],
    plan: ArrayPlan,
    standardize: Sequence[str] | None,
    scans: MapScans,
) -> Dataset:
    """Makes a data set of the arrays of its splits, and prints a summary.

    Args:
      name: name of the data set.
      parts: {split: arrays by name}.
      plan: what they are.
      standardize: see `from_arrays`.
      scans: computes what depends on the numbers of an input.

    Raises:
      ValueError: naming the split, the array and the row of what is wrong.
    """
    check_sizes(name, {split: count_split_rows(split, part) for split, part in parts.items()})
    inputs, tasks = plan.list_inputs(), plan.tasks
    warn_about_inputs_as_targets(name, {m: (m,) for m in inputs}, {t: (t,) for t in plan.targets})
    columns: dict[str, dict[str, Column]] = {m: {} for m in inputs}
    values: dict[str, dict[str, Targets]] = {t: {} for t in plan.targets}
    for split, part in parts.items():
        for m in inputs:
            columns[m][split] = read_input(split, m, part, plan.lengths, plan.present, scans)
        for t in plan.targets:
            values[t][split] = read_target(name, split, t, part, tasks.get(t))
    specs = _infer_modalities(columns, plan.lengths, plan.list_clouds(), plan.modalities)
    _check_same_scales(name, columns, specs)
    all_tasks = {t: infer_task_of_targets(t, tasks.get(t), values[t], specs) for t in values}
    batches = {split: Batch({}, {}, {}, {}, {}) for split in parts}
    for m in inputs:
        _add_input(batches, m, columns[m], specs[m])
    for split, part in parts.items():
        rows = {t: by_split[split] for t, by_split in values.items()}
        batches[split] = _add_targets(split, batches[split], part, rows, all_tasks, plan)
        check_numbers = functools.partial(_check_values_once, scans)
        validate_split(name, split, batches[split], specs, all_tasks, check_numbers)
    for t in values.keys() - tasks.keys():
        note_unusual_task(name, t, all_tasks[t], batches["train"])
    dtypes = {m: choose_common_dtype(c.dtype for c in columns[m].values()) for m in inputs}
    scales = _compute_scales(name, batches["train"], specs, dtypes, standardize, scans)
    return _finish_dataset(name, batches, specs, all_tasks, dtypes, scales, plan, scans)


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
    plan: ArrayPlan,
) -> Batch:
    """Adds the encoded targets of a split, and the weights of its examples."""
    place, encoded = _make_place_formatter(split), {}
    for t, task in tasks.items():
        rows = targets[t]
        if (mask := plan.labeled.get(t)) is not None:
            rows = mask_targets(rows, read_mask(split, mask, part[mask]))
        batch.targets[t], batch.labeled[t] = encode_target_array(t, task, rows, place)
    for t, array in plan.weights.items():
        numbers = read_weight_array(split, array, part[array])
        encoded[t] = encode_weights(t, numbers, batch.labeled[t], place)
    return batch._replace(weights=encoded)


def _make_place_formatter(split: str) -> Any:
    return lambda row: f"row {row} of {split!r}"


_Scales = dict[str, tuple[Scale, Any]]  # with the features that are constant


def _compute_scales(
    name: str,
    train: Batch,
    modalities: Mapping[str, Modality],
    dtypes: Mapping[str, np.dtype],
    standardize: Sequence[str] | None,
    scans: MapScans,
) -> _Scales:
    """Computes the standardization of the modalities that have one.

    Raises:
      ValueError: naming a modality that no training example has.
    """
    scales: _Scales = {}
    is_standardized = make_standardize_filter(standardize)
    for m, spec in modalities.items():
        if not train.present[m].any():
            raise ValueError(f"{name}: no training example has modality {m!r}; leave it out.")
        if is_standardized(m, dtypes[m]):
            compute = functools.partial(_compute_scale, train, m, spec)
            gaps = _list_gaps(train, m, spec)
            *scale, is_constant = scans.recall(train.inputs[m], "scale", gaps, compute)
            scales[m] = Scale(*scale), is_constant
    return scales


def _compute_scale(train: Batch, modality: str, spec: Modality) -> list[np.ndarray]:
    is_real = make_validity_mask(train.present[modality], train.lengths.get(modality), spec)
    scale, is_constant = compute_scale_by_chunks(train.inputs[modality], is_real, spec)
    return [*scale, is_constant]


def _list_gaps(batch: Batch, modality: str, spec: Modality) -> list[Any]:
    """Lists what says where the numbers of a modality are neither missing nor padding."""
    return [spec, batch.present[modality], batch.lengths.get(modality)]


def _check_values_once(scans: MapScans, batch: Batch, modality: str, spec: Modality) -> None:
    def check() -> list[np.ndarray]:
        check_values(batch, modality, spec)
        return []

    gaps = _list_gaps(batch, modality, spec)
    scans.recall(batch.inputs[modality], "values are right", gaps, check)


def _hash_source(
    source: Arrays | MappedArrays,
    modalities: Mapping[str, Modality],
    dtypes: Mapping[str, np.dtype],
    scales: _Scales,
    scans: MapScans,
) -> Digests:
    """Hashes the inputs of all examples."""
    total = np.zeros((len(source), 2), np.uint64)
    for number, (m, spec) in enumerate(sorted(modalities.items())):
        compute = functools.partial(_hash_input, source, m, spec, number)
        # What is hashed are the numbers that a model gets.
        settings = [*_list_gaps(source.batch, m, spec), number, dtypes[m], *scales.get(m, [()])[0]]
        total += scans.recall(source.batch.inputs[m], "hashes", settings, compute)[0]
    return total


def _hash_input(
    source: Arrays | MappedArrays, modality: str, spec: Modality, number: int
) -> list[np.ndarray]:
    return [hash_modality(select_input(source, modality), modality, spec, number)]


def _finish_dataset(
    name: str,
    batches: Mapping[str, Batch],
    modalities: Mapping[str, Modality],
    tasks: Mapping[str, Task],
    dtypes: Mapping[str, np.dtype],
    scales: _Scales,
    plan: ArrayPlan,
    scans: MapScans,
) -> Dataset:
    scales_only = {m: scale for m, (scale, _) in scales.items()}
    digests, sources = {}, {}
    for split, batch in batches.items():
        sources[split] = make_array_source(batch, modalities, scales_only, dtypes)
        digests[split] = _hash_source(sources[split], modalities, dtypes, scales, scans)
    prepared, clouds = {}, plan.list_clouds()
    for m in modalities:
        dtype = "float32" if m in scales else str(dtypes[m])
        prepared[m] = Preparation(
            clouds.get(m), dtype=dtype, scale=scales_only.get(m), lengths=plan.lengths.get(m)
        )
    data = Dataset(name, modalities, tasks, sources, preparations=prepared)
    return check_and_announce(
        data,
        batches,
        {m: int(batches["train"].present[m].sum()) for m in modalities},
        digests,
        lambda split, row: _make_place_formatter(split)(row),
        {m: is_constant for m, (_, is_constant) in scales.items()},
    )
