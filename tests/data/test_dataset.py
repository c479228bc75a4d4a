"""Sources and the selection of modalities and tasks."""

import numpy as np
import pytest

from mmjax.data.dataset import Arrays, Source, select_modalities_and_tasks
from mmjax.types import Batch


def small_batch():
    """Four examples: with both modalities, with each alone, and with both again."""
    return Batch(
        inputs={"a": np.arange(8.0).reshape(4, 2), "b": np.arange(12.0).reshape(4, 3, 1)},
        present={"a": np.array([1, 1, 0, 1], bool), "b": np.array([1, 0, 1, 1], bool)},
        lengths={"b": np.array([3, 1, 2, 3], np.int32)},
        targets={"x": np.array([5, 6, 7, 8]), "y": np.array([0.5, 1.5, 2.5, 3.5])},
        labeled={"x": np.array([1, 1, 1, 0], bool), "y": np.array([1, 1, 0, 1], bool)},
    )


def same(one, other):
    for part, expected in zip(one, other, strict=True):
        assert list(part) == list(expected)
        for name in part:
            np.testing.assert_array_equal(part[name], expected[name])


def test_all_modalities_and_tasks_keep_everything():
    same(select_modalities_and_tasks(small_batch(), ["b", "a"], ["y", "x"]), small_batch())


@pytest.mark.parametrize(
    ("kept", "x", "y"),
    [
        ("a", [1, 1, 0, 0], [1, 1, 0, 1]),  # the third example has nothing but b
        ("b", [1, 0, 1, 0], [1, 0, 0, 1]),  # the second has nothing but a
    ],
)
def test_an_example_without_a_kept_modality_loses_its_labels(kept, x, y):
    batch = small_batch()
    chosen = select_modalities_and_tasks(batch, [kept], ["x", "y"])
    assert list(chosen.inputs) == list(chosen.present) == [kept]
    np.testing.assert_array_equal(chosen.inputs[kept], batch.inputs[kept])
    np.testing.assert_array_equal(chosen.present[kept], batch.present[kept])
    assert list(chosen.lengths) == ["b"] * (kept == "b")
    np.testing.assert_array_equal(chosen.labeled["x"], np.array(x, bool))
    np.testing.assert_array_equal(chosen.labeled["y"], np.array(y, bool))
    same(batch, small_batch())  # the source is as it was


def test_only_the_named_tasks_are_kept():
    chosen = select_modalities_and_tasks(small_batch(), ["a", "b"], ["y"])
    assert list(chosen.targets) == list(chosen.labeled) == ["y"]


def test_arrays_take_in_the_order_asked_for_and_as_often():
    source = Arrays(small_batch())
    assert isinstance(source, Source)
    assert len(source) == 4
    taken = source.take(np.array([2, 0, 2]))
    np.testing.assert_array_equal(taken.inputs["a"], [[4, 5], [0, 1], [4, 5]])
    np.testing.assert_array_equal(taken.inputs["b"][:, :, 0], [[6, 7, 8], [0, 1, 2], [6, 7, 8]])
    np.testing.assert_array_equal(taken.present["a"], [False, True, False])
    np.testing.assert_array_equal(taken.lengths["b"], [2, 3, 2])
    np.testing.assert_array_equal(taken.targets["y"], [2.5, 0.5, 2.5])
    np.testing.assert_array_equal(taken.labeled["y"], [False, True, False])
