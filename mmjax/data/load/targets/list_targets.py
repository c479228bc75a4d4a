"""Targets of several numbers or names: vectors, shares, sets, sequences, masks and depth maps."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmjax.data.dataset import Task

_SUM_TOLERANCE = 1e-3  # of shares, which people round to a few digits
_FLOAT_KINDS = ("regression", "depth")


class LabelError(Exception):
    """An invalid label; the message does not name its place."""


def choose_target_dtype(task: Task) -> type[np.generic]:
    """Returns the type of a task's target array.

    Example:
      >>> choose_target_dtype(Task("depth")).__name__
      'float32'
    """
    has_shares = task.kind == "classification" and task.shape
    return np.float32 if task.kind in _FLOAT_KINDS or has_shares else np.int32


def infer_list_task(task: str, labels: Sequence[Any]) -> Task:
    """Infers a task whose targets are lists or sets, of which there is at least one.

    Raises:
      ValueError: if the kind is not certain; the message says how to give it.

    Example:
      >>> infer_list_task("tags", [{"b"}, {"a", "b"}])
      Task(kind='multilabel', classes=('a', 'b'), unit='', shape=(), partial=False)
      >>> infer_list_task("place", [[0.5, 2.0]]).shape
      (2,)
    """
    if all(isinstance(label, set | frozenset) for label in labels):
        return Task("multilabel", tuple(sorted({str(name) for label in labels for name in label})))
    rows = [np.ravel(np.asarray(label, dtype=object)) for label in labels]
    if any(np.ndim(label) > 1 or isinstance(label, set | frozenset) for label in labels):
        raise ValueError(
            f"target {task!r} has rows of the shape {np.shape(labels[0])}; say what they are by "
            "tasks, such as Task('segmentation', classes) or Task('depth')."
        )
    if not len(rows[0]):
        raise ValueError(f"target {task!r} has rows without numbers; leave them None.")
    known = [value for row in rows for value in row if not is_unknown(value)]
    if all(isinstance(value, str) for value in known):
        return Task("sequence")
    if all(value in (0, 1) for value in known):
        return Task("multilabel", tuple(str(i) for i in range(len(rows[0]))))
    if any(isinstance(value, float | np.floating) for value in known):
        return Task("regression", shape=(len(rows[0]),))
    raise ValueError(
        f"target {task!r} has lists of whole numbers that are not 0 or 1; give floating-point "
        "numbers for a regression, or say by tasks what they are, such as "
        "Task('sequence', classes)."
    )


def make_list_encoder(task: Task, encode_class: Callable[[Any], int]) -> Callable[[Any], Any]:
    """Makes the function that encodes one target as an array of the task's shape.

    Raises LabelError, when called, for what does not fit.
    """
    encoders: dict[str, Callable[[Any], Any]] = {
        "classification": lambda value: _encode_shares(task, value),
        "multilabel": lambda value: _encode_multilabel(task, value),
        "sequence": lambda value: _encode_steps(task, encode_class, value),
        "segmentation": lambda value: _encode_mask(task, value),
    }
    return encoders.get(task.kind, lambda value: _encode_vector(task, value))


def _encode_vector(task: Task, value: Any) -> np.ndarray:
    """Converts a vector or a depth map; NaN in a depth map becomes 0 (not measured)."""
    try:
        vector = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise LabelError(f"{value!r}, which is not all numbers.") from None
    _check_shape(task, vector)
    if task.kind == "depth":
        vector = np.where(np.isnan(vector), 0, vector)
        if (vector < 0).any():
            raise LabelError(
                f"{vector.min()} somewhere; a depth must be positive, or 0 if unknown."
            )
    with np.errstate(over="ignore"):
        converted = vector.astype(np.float32)
    if not np.isfinite(converted).all():
        bad = vector[~np.isfinite(converted)][0]
        raise LabelError(
            f"{bad} somewhere, which is not finite or beyond float32; correct or rescale it."
        )
    return converted


def _encode_shares(task: Task, value: Any) -> np.ndarray:
    shares = _encode_vector(task, value)
    if (shares < 0).any() or abs(shares.sum(dtype=np.float64) - 1) > _SUM_TOLERANCE:
        raise LabelError(f"{value!r}; the shares of the classes must be positive and sum to 1.")
    return shares


def _encode_multilabel(task: Task, value: Any) -> list[int]:
    if isinstance(value, set | frozenset):
        unknown = sorted({str(name) for name in value} - set(task.classes))
        if unknown:
            raise LabelError(
                f"{unknown[0]!r}, which is none of its {len(task.classes)} classes. Correct it, or "
                "name all classes in the target, such as LabelSet(column, classes=...)."
            )
        return [int(name in {str(v) for v in value}) for name in task.classes]
    if not isinstance(value, list | tuple | np.ndarray) or len(value) != len(task.classes):
        raise LabelError(f"{value!r}; it must be {len(task.classes)} numbers, each 0 or 1.")
    if any(not is_unknown(v) and v not in (0, 1) for v in value):
        raise LabelError(f"{value!r}; every number must be 0 or 1, or None if it is unknown.")
    return [-1 if is_unknown(v) else int(v) for v in value]


def _encode_steps(task: Task, encode_class: Callable[[Any], int], value: Any) -> np.ndarray:
    steps = np.full(task.shape, -1, np.int32)
    if len(value) > len(steps):
        raise LabelError(f"a list of {len(value)} labels; its sequence has {len(steps)} steps.")
    for i, label in enumerate(value):
        has_label = (
            not is_unknown(label) and label != "" and (isinstance(label, str) or label != -1)
        )
        steps[i] = encode_class(label) if has_label else -1
    return steps


def _encode_mask(task: Task, value: Any) -> np.ndarray:
    mask = np.asarray(value)
    _check_shape(task, mask)
    if mask.dtype.kind not in "biu":
        raise LabelError(f"of type {mask.dtype}; a mask needs whole numbers.")
    bad = mask[(mask < -1) | (mask >= len(task.classes))]
    if bad.size:
        raise LabelError(
            f"{bad[0]} somewhere; it must be 0 to {len(task.classes) - 1}, or -1 without a label."
        )
    return mask.astype(np.int32)


def _check_shape(task: Task, array: np.ndarray) -> None:
    if array.shape != task.shape:
        fix = " Give its kind a size=(height, width)." if len(task.shape) == 2 else ""
        raise LabelError(f"of the shape {array.shape}; it must be {task.shape}.{fix}")


def is_unknown(value: Any) -> bool:
    """Checks whether an element of a list has no label: None or NaN.

    Example:
      >>> is_unknown(None), is_unknown(float("nan")), is_unknown(0)
      (True, True, False)
    """
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))
