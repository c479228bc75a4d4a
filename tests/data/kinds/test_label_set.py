"""Targets of several labels: sets, unknown entries, ordered classes, shares, vectors."""

import numpy as np
import pytest

from mmjax.data import Label, Labels, LabelSet, Shares, Value, from_arrays, from_table
from mmjax.data.dataset import Task


def get_targets(data, task="y"):
    return [data.splits[s].batch.targets[task].tolist() for s in ("train", "test")]


def test_sets_become_one_column_per_class_of_train(load):
    tags = ["big;tame", "[]", "", " tame ;big", "tame", ""]
    data = load({"tags": tags}, {}, {"y": LabelSet("tags")})
    assert data.tasks["y"] == Task("multilabel", ("big", "tame"))
    assert data.splits["train"].batch.labeled["y"].tolist() == [True, True, False]
    assert get_targets(data) == [[[1, 1], [0, 0], [0, 0]], [[1, 1], [0, 1], [0, 0]]]
    with pytest.raises(ValueError, match=r"line 6: target 'y' is 'wild', which is none of its 2"):
        load({"tags": [*tags[:4], "wild", ""]}, {}, {"y": LabelSet("tags")})
    given = LabelSet("tags", separator="|", classes=("wild", "tame"))
    data = load({"tags": ["wild|tame", "tame"] * 3}, {}, {"y": given})
    assert get_targets(data)[0] == [[1, 1], [0, 1], [1, 1]]


def test_sets_of_arrays_and_lists_of_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    sets = [{"a"}, {"a", "b"}, None, set()] * 10
    train = {"x": np.arange(40.0), "y": sets}
    data = from_arrays({"train": train}, ["x"], ["y"])
    expected = [[1, 0], [1, 1], [0, 0], [0, 0]]
    assert data.splits["train"].batch.targets["y"][:4].tolist() == expected
    lists = [None if s is None else sorted(s) for s in sets]
    table = pyarrow.table({"x": train["x"], "y": lists, "part": ["train"] * 40})
    parquet.write_table(table, tmp_path / "t.parquet")
    data = from_table(tmp_path / "t.parquet", {"x": "x"}, {"y": LabelSet("y")}, split="part")
    batch = data.splits["train"].batch
    assert batch.targets["y"][:4].tolist() == expected
    assert batch.labeled["y"][:4].tolist() == [True, True, False, True]


def test_empty_cells_among_labels_are_unknown(load):
    columns = {"big": ["1", "", "0", "", "1", "0"], "tame": ["0", "1", "", "", "1", "0"]}
    data = load(columns, {}, {"y": Labels(("big", "tame"))})
    assert data.tasks["y"].partial
    assert get_targets(data) == [[[1, 0], [-1, 1], [0, -1]], [[0, 0], [1, 1], [0, 0]]]
    assert data.splits["test"].batch.labeled["y"].tolist() == [False, True, True]
    whole = load(
        {"big": ["1", "0"] * 3, "tame": ["1", "0"] * 3}, {}, {"y": Labels(("big", "tame"))}
    )
    assert not whole.tasks["y"].partial


def test_unknown_entries_of_arrays():
    y = np.array([[1, np.nan], [0, 1], [np.nan, np.nan], [1, 0]] * 10)
    data = from_arrays({"train": {"x": np.arange(40.0), "y": y}}, ["x"], ["y"])
    batch = data.splits["train"].batch
    assert data.tasks["y"] == Task("multilabel", ("0", "1"), partial=True)
    assert batch.targets["y"][:4].tolist() == [[1, -1], [0, 1], [0, 0], [1, 0]]
    assert batch.labeled["y"][:4].tolist() == [True, True, False, True]


def test_ordered_classes_are_in_the_order_of_numbers_or_as_given(load):
    stars = ["1", "10", "2", "1", "2", "10"]
    data = load({"y": stars}, {}, {"y": Label("y", ordered=True)})
    assert data.tasks["y"] == Task("ordinal", ("1", "2", "10"))
    assert get_targets(data) == [[0, 2, 1], [0, 1, 2]]
    sizes = {"y": ["small", "huge", "mid", "mid", "small", "huge"]}
    given = Label("y", ("small", "mid", "huge"), ordered=True)
    assert get_targets(load(sizes, {}, {"y": given})) == [[0, 2, 1], [1, 0, 2]]
    with pytest.raises(ValueError, match=r"but the order of .* is not known; give the classes"):
        load(sizes, {}, {"y": Label("y", ordered=True)})
    arrays = {"train": {"x": np.arange(40.0), "y": [3, 1, 2, 3] * 10}}
    data = from_arrays(arrays, ["x"], ["y"], tasks={"y": Task("ordinal")})
    assert data.splits["train"].batch.targets["y"][:4].tolist() == [2, 0, 1, 2]


def test_shares_are_votes_divided_by_their_sum(load):
    columns = {"cat": ["3", "0", "1", "0.5"], "dog": ["1", "2", "1", "1.5"]}
    data = load(columns, {}, {"y": Shares(("cat", "dog"))})
    assert data.tasks["y"] == Task("classification", ("cat", "dog"), shape=(2,))
    assert get_targets(data) == [[[0.75, 0.25], [0, 1]], [[0.5, 0.5], [0.25, 0.75]]]
    columns["cat"][1], columns["dog"][1] = "0", "0"
    with pytest.raises(ValueError, match=r"line 3, 'y': \[0\.0, 0\.0\] are not shares"):
        load(columns, {}, {"y": Shares(("cat", "dog"))})
    task = Task("classification", ("cat", "dog"), shape=(2,))
    bad = {"train": {"x": np.arange(40.0), "y": np.full((40, 2), 0.7)}}
    with pytest.raises(ValueError, match=r"row 0 .* the shares of the classes must be positive"):
        from_arrays(bad, ["x"], ["y"], tasks={"y": task})


def test_vectors_are_columns_lists_or_text(load):
    columns = {"a": ["1.5", "2", "3", "4"], "b": ["-1", "0", "1", "2"]}
    data = load(columns, {}, {"y": Value(("a", "b"), unit="m")})
    assert data.tasks["y"] == Task("regression", unit="m", shape=(2,))
    assert get_targets(data) == [[[1.5, -1], [2, 0]], [[3, 1], [4, 2]]]
    data = load({"v": ["[1, 2]", "[3 4]", "[5,6]", "[7,8.5]"]}, {}, {"y": Value("v")})
    assert data.tasks["y"].shape == (2,) and get_targets(data)[1] == [[5, 6], [7, 8.5]]
    with pytest.raises(ValueError, match=r"line 4: target 'y' is of the shape \(3,\); it must be"):
        load({"v": ["[1, 2]", "[3 4]", "[5,6,7]", "[7,8]"]}, {}, {"y": Value("v")})


def test_lists_whose_meaning_is_not_certain_need_a_task():
    for rows, message in (
        ([[1, 2], [3, 4]] * 20, "lists of whole numbers that are not 0 or 1"),
        (np.zeros((40, 2, 2), int), r"rows of the shape \(2, 2\); say what they are by tasks"),
        ([[]] * 40, "rows without numbers; leave them None"),
    ):
        with pytest.raises(ValueError, match=message):
            from_arrays({"train": {"x": np.arange(40.0), "y": rows}}, ["x"], ["y"])
