"""Targets of every token or pixel, and of ordered classes."""

import numpy as np
import pytest

from mmjax.data.checks.validate import check_label_variety, validate_split
from mmjax.data.dataset import Modality, Task
from mmjax.types import Batch

TASKS = {
    "grade": Task("ordinal", tuple("abc")),
    "tags": Task("sequence", tuple("xy"), shape=(3,)),
    "parts": Task("segmentation", tuple("abc"), shape=(2, 2)),
    "depth": Task("depth", unit="m", shape=(2, 2)),
}


@pytest.fixture
def batch():
    rows = np.array([True, True, False])
    return Batch(
        inputs={"x": np.ones((3, 2), np.float32)},
        present={"x": np.ones(3, bool)},
        lengths={},
        targets={
            "grade": np.array([0, 2, 9]),
            "tags": np.array([[0, 1, -1], [1, -1, -1], [7, 7, 7]]),
            "parts": np.array([[[0, 1], [2, -1]], [[1, 1], [1, 1]], [[-1, -1], [-1, -1]]]),
            "depth": np.array([[[0, 1], [2, 3]], [[1, 1], [0, 0]], [[-1] * 2] * 2], np.float32),
        },
        labeled={task: rows.copy() for task in TASKS},
    )


def check(batch):
    validate_split("toy", "train", batch, {"x": Modality((2,))}, TASKS)


def test_good_targets_pass_whatever_the_missing_parts_hold(batch):
    check(batch)
    check_label_variety("toy", "train", batch, TASKS)


@pytest.mark.parametrize(
    "task, index, value, message",
    [
        ("grade", 1, 3, "'grade' is 3 in row 1; it must be 0 to 2"),
        ("tags", (1, 0), 2, "'tags' is 2 somewhere in row 1; it must be 0 to 1, or -1"),
        ("tags", (0, 2), -2, "'tags' is -2 somewhere in row 0"),
        ("tags", 1, -1, "'tags' is -1 everywhere in row 1; set `labeled` to False"),
        ("parts", (0, 0, 1), 3, "'parts' is 3 somewhere in row 0; it must be 0 to 2"),
        ("parts", 0, -1, "'parts' is -1 everywhere in row 0"),
        ("depth", (1, 0, 0), -2, "'depth' is -2.0 in row 1; it must be positive, or 0"),
        ("depth", (1, 0, 0), np.nan, "'depth' is nan in row 1"),
        ("depth", 0, 0, "'depth' is 0 everywhere in row 0"),
    ],
)
def test_a_bad_value_is_named(batch, task, index, value, message):
    batch.targets[task][index] = value
    with pytest.raises(ValueError, match=message):
        check(batch)


@pytest.mark.parametrize(
    "task, change, message",
    [
        ("tags", lambda y: y[:, :2], r"has shape \(3, 2\); it must be \(3, 3\)"),
        ("parts", lambda y: y.astype(float), "has type float64; it must be integer"),
        ("depth", lambda y: y.astype(int), "a depth needs floating-point"),
        ("depth", lambda y: y[:, 0], r"it must be \(3, 2, 2\)"),
    ],
)
def test_a_bad_array_is_named(batch, task, change, message):
    batch.targets[task] = change(batch.targets[task])
    with pytest.raises(ValueError, match=message):
        check(batch)


@pytest.mark.parametrize("task, only", [("grade", 1), ("tags", 1), ("parts", 2)])
def test_one_class_is_nothing_to_learn(batch, task, only):
    y = batch.targets[task]
    batch.targets[task] = np.where(y >= 0, only, y)
    with pytest.raises(ValueError, match=f"{task!r} has labels of one class only"):
        check_label_variety("toy", "train", batch, TASKS)
