"""Encoding of targets (names, numbers, lists of 0 and 1) as the arrays that a task trains on."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Num

from mmjax.data.dataset import Task
from mmjax.data.load.decode import decode_utf8
from mmjax.data.load.targets.class_names import (
    format_class_name,
    make_class_encoder,
    sort_classes,
)
from mmjax.data.load.targets.list_targets import (
    LabelError,
    choose_target_dtype,
    infer_list_task,
    make_list_encoder,
)

PlaceFormatter = Callable[[int], str]
_MAX_FLOAT32 = float(np.finfo(np.float32).max)


def convert_to_python(array: np.ndarray) -> list[Any]:
    """Converts an array to Python values; masked ones and rows of NaN become None."""
    values = np.ma.getdata(array)
    absent = np.ma.getmaskarray(array) if values.ndim == 1 else find_missing_rows(array)
    # Rows of images stay arrays: as Python numbers they would take many times the memory.
    rows = list(values) if values.ndim > 2 else values.tolist()
    return [None if a else v for v, a in zip(rows, absent, strict=True)]


def feature_to_python(value: Any) -> Any:
    """Converts the value of a TFDS feature to a Python one; an empty text becomes None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        value = decode_utf8(value)
    return None if value == "" else value


def find_missing_rows(array: np.ndarray) -> Bool[np.ndarray, " n"]:
    """Finds the rows that are entirely masked or NaN."""
    absent = np.ma.getmaskarray(array)
    if np.issubdtype(array.dtype, np.inexact):
        absent = absent | np.isnan(np.ma.getdata(array))
    absent = absent.reshape(len(array), -1)
    return np.asarray(absent.all(axis=1) & (absent.shape[1] > 0))


def check_target_type(what: str, dtype: np.dtype) -> None:
    """Refuses arrays whose type is neither that of classes nor of numbers.

    Raises:
      ValueError: beginning with `what`, with the type and the fix.
    """
    fix = {
        "c": "give its real and its imaginary part as two targets",
        "M": "convert it to numbers, such as days since the first, or to names of classes",
        "m": "convert it to numbers, such as seconds, or to names of classes",
        "V": "give each of its fields as a target of its own",
    }.get(dtype.kind)
    if fix:
        raise ValueError(f"{what} is of type {dtype}, which cannot be predicted; {fix}.")


def is_missing(value: Any) -> bool:
    """Checks whether a label is missing: None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def infer_task(task: str, values: Sequence[Any]) -> Task:
    """Infers a task from the targets of the training split.

    Names, whole numbers and truth values are classes, sorted; floating-point numbers are a
    regression, and lists of them one of vectors; lists of 0 and 1 (None or NaN is unknown) and sets
    of names are a multi-label task; lists of names are the classes of a sequence's steps.

    Raises:
      ValueError: if `values` is empty, has several types, or has only one class.

    Example:
      >>> infer_task("size", [3, 1, None, 10]).classes
      ('1', '3', '10')
      >>> infer_task("size", [3, 1.5]).kind
      'regression'
    """
    labels = [value for value in values if not is_missing(value)]
    if not labels:
        raise ValueError(f"target {task!r} has no value in the training split.")
    kinds = {_name_value_type(value) for value in labels}
    if kinds <= {"float", "int"} and "float" in kinds:
        return Task("regression")
    if len(kinds) > 1:
        raise ValueError(f"target {task!r} has values of several types: {sorted(kinds)}.")
    if kinds <= {"list", "set", "frozenset"}:
        return infer_list_task(task, labels)
    try:
        names = {format_class_name(value) for value in labels}
    except ValueError as error:
        raise ValueError(f"target {task!r} has {error}") from None
    if len(names) == 1:
        raise ValueError(
            f"target {task!r} has one class only in the training split, {names.pop()!r}: there is "
            "nothing to learn; leave the task out."
        )
    return Task("classification", sort_classes(names))


def encode_targets(
    name: str, task: Task, values: Sequence[Any], place: PlaceFormatter
) -> tuple[Num[np.ndarray, "n *classes"], Bool[np.ndarray, " n"]]:
    """Encodes targets as arrays.

    A whole number is the index of a class if no class has a number for a name.

    Args:
      name: name of the task, for messages.
      task: what the targets must be.
      values: one per row; None or NaN if there is none.
      place: returns where a row is, for messages.

    Returns:
      The targets, 0 for missing ones, and the mask of those that are not missing.

    Raises:
      ValueError: naming the place and the value, if it is not one of the classes or of the wrong
        type.

    Example:
      >>> encode_targets("pet", Task("classification", ("cat", "dog")), ["dog", None], str)
      (array([1, 0], dtype=int32), array([ True, False]))
    """
    labeled = np.array([not is_missing(value) for value in values], bool)
    encode_class = make_class_encoder(task)
    if task.shape or task.kind == "multilabel":
        encode_one = make_list_encoder(task, encode_class)
    else:
        encode_one = encode_class if task.classes else _encode_number
    shape = (len(task.classes),) if task.kind == "multilabel" else task.shape
    targets = np.zeros((len(values), *shape), choose_target_dtype(task))
    for row in np.flatnonzero(labeled).tolist():
        try:
            targets[row] = encode_one(values[row])
        except (LabelError, TypeError, ValueError) as error:
            raise ValueError(f"{place(row)}: target {name!r} is {error}") from None
    return targets, labeled


def _encode_number(value: Any) -> float:
    try:
        number = float(value) if _name_value_type(value) in ("int", "float", "bool") else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise LabelError(f"{repr(value)[:80]}, which is not a finite number.")
    if abs(number) > _MAX_FLOAT32:
        raise LabelError(f"{number}, which is beyond float32; rescale the target.")
    return number


def _name_value_type(value: Any) -> str:
    if isinstance(value, bytes | str):
        return "str"
    return "list" if isinstance(value, list | tuple | np.ndarray) else type(value).__name__
