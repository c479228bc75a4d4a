"""Targets that are arrays of one axis, inferred and encoded without a loop over the rows."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Num

from mmjax.data.dataset import Modality, Task
from mmjax.data.load.targets.complete_task import infer_or_complete_task
from mmjax.data.load.targets.labels import (
    PlaceFormatter,
    check_target_type,
    convert_to_python,
    encode_targets,
    find_missing_rows,
)

_MAX_FLOAT32 = float(np.finfo(np.float32).max)


class TargetArray(NamedTuple):
    """The targets of one split as an array.

    Attributes:
      values: [n] numbers, truth values or names; arbitrary where unlabeled.
      labeled: where there is a label.
    """

    values: np.ndarray
    labeled: Bool[np.ndarray, " n"]


Targets = TargetArray | list[Any]


def read_targets(split: str, target: str, raw: Any) -> Targets:
    """Reads a target: an array of one axis stays one, anything else becomes Python values.

    Raises:
      ValueError: naming the split, the target and a type that cannot be predicted.
    """
    if isinstance(raw, np.ndarray) and raw.dtype != object:
        check_target_type(f"target {target!r} of split {split!r}", raw.dtype)
        if raw.ndim == 1:
            return TargetArray(np.ma.getdata(raw), ~find_missing_rows(raw))
        return convert_to_python(raw)
    for row, v in enumerate(raw):
        if isinstance(v, np.ndarray | np.generic) and v.dtype != object:
            check_target_type(f"row {row} of {split!r}: target {target!r}", v.dtype)
    return [v.tolist() if isinstance(v, np.ndarray | np.generic) else v for v in raw]


def mask_targets(targets: Targets, mask: Bool[np.ndarray, " n"]) -> Targets:
    """Removes the labels where a mask is false."""
    if isinstance(targets, TargetArray):
        return targets._replace(labeled=targets.labeled & mask)
    return [row if is_labeled else None for row, is_labeled in zip(targets, mask, strict=True)]


def infer_task_of_targets(
    name: str,
    task: Task | None,
    targets: Mapping[str, Targets],
    modalities: Mapping[str, Modality],
) -> Task:
    """Infers or completes a task as `infer_or_complete_task` does.

    Args:
      name: name of the task, for messages.
      task: the task; None: inferred.
      targets: {split: targets}.
      modalities: the modalities.

    Example:
      >>> sizes = TargetArray(np.array([3, 1, 9]), np.array([1, 1, 0]) > 0)
      >>> infer_task_of_targets("size", None, {"train": sizes}, {}).classes
      ('1', '3')
    """
    train = targets["train"]
    if isinstance(train, TargetArray):
        # An array has one number or name per row, whose distinct values tell all.
        values = train.values[train.labeled]
        is_number = values.dtype.kind == "f" and (task is None or not _needs_classes(task))
        distinct = (values[:1] if is_number else np.unique(values)).tolist()
        return infer_or_complete_task(name, task, {"train": distinct}, modalities)
    lists = {s: rows for s, rows in targets.items() if isinstance(rows, list)}
    return infer_or_complete_task(name, task, lists, modalities)


def _needs_classes(task: Task) -> bool:
    return task.kind not in ("regression", "depth") and not task.classes


def encode_target_array(
    name: str, task: Task, targets: Targets, place: PlaceFormatter
) -> tuple[Num[np.ndarray, "n *classes"], Bool[np.ndarray, " n"]]:
    """Encodes targets as `encode_targets` does; for an array, each distinct value once."""
    if isinstance(targets, list):
        return encode_targets(name, task, targets, place)
    values, labeled = targets
    if task.kind == "regression" and values.dtype.kind in "biuf":
        return _encode_numbers(name, task, targets, place)
    distinct, first, index = np.unique(values[labeled], return_index=True, return_inverse=True)
    rows = np.flatnonzero(labeled)
    encoded, _ = encode_targets(name, task, distinct.tolist(), lambda i: place(int(rows[first[i]])))
    result = np.zeros((len(values), *encoded.shape[1:]), encoded.dtype)
    result[rows] = encoded[index.reshape(-1)]
    return result, labeled


def _encode_numbers(
    name: str, task: Task, targets: TargetArray, place: PlaceFormatter
) -> tuple[Num[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    values = np.where(targets.labeled, targets.values, 0).astype(np.float64)
    bad = ~(np.abs(values) <= _MAX_FLOAT32)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        encode_targets(name, task, targets.values[row : row + 1].tolist(), lambda _: place(row))
    return values.astype(np.float32), targets.labeled


def squeeze_targets(raw: Any) -> Any:
    """Returns targets [n, 1] as [n], and others as they are.

    Example:
      >>> squeeze_targets(np.zeros((3, 1))).shape, squeeze_targets([[1], [2]])
      ((3,), [1, 2])
    """
    if isinstance(raw, np.ndarray):
        return raw[:, 0] if raw.ndim == 2 and raw.shape[1] == 1 else raw
    has_one = [_has_one_value(value) for value in raw if value is not None]
    if not has_one or not all(has_one):
        return raw
    return [None if value is None else value[0] for value in raw]


def _has_one_value(value: Any) -> bool:
    return (
        isinstance(value, Sequence | np.ndarray)
        and not isinstance(value, str | bytes)
        and (np.shape(value) == (1,) if isinstance(value, np.ndarray) else len(value) == 1)
    )
