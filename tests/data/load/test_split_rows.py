"""Splits of one table: every row once, right shares, no group or time torn."""

import datetime

import numpy as np
import pytest

from mmjax.data import Split, from_table, split_arrays
from mmjax.data.load.split_rows import assign_rows

SHARES = (("train", 0.7), ("validation", 0.1), ("test", 0.2))


def check_partition(parts, examples):
    rows = [row for part in parts.values() for row in part]
    assert sorted(rows) == list(range(examples))
    assert all(part == sorted(part) for part in parts.values())


@pytest.mark.parametrize("seed", range(4))
def test_strata_and_totals_are_right_to_within_one_row(seed):
    rng = np.random.default_rng(seed)
    classes = np.concatenate([np.repeat(np.arange(40), 3), rng.integers(40, 44, 411)])
    rng.shuffle(classes)
    parts = assign_rows(Split(SHARES, stratify="y"), {"y": classes.tolist()}, len(classes), seed)
    check_partition(parts, len(classes))
    for name, share in SHARES:
        assert abs(len(parts[name]) - share * len(classes)) <= 1
        for c in np.unique(classes):
            total = (classes == c).sum()
            assert abs((classes[parts[name]] == c).sum() - share * total) < 2


def test_without_columns_rows_are_drawn_as_ever():
    parts = assign_rows(Split(SHARES), {}, 53, seed=7)
    ends = np.round(np.cumsum([0.7, 0.1, 0.2]) * 53).astype(int)[:-1]
    expected = np.split(np.random.default_rng(7).permutation(53), ends)
    for part, rows in zip(parts.values(), expected, strict=True):
        assert part == sorted(rows.tolist())


@pytest.mark.parametrize("stratify", [None, "y"])
def test_no_group_is_torn_and_shares_are_kept(stratify):
    rng = np.random.default_rng(0)
    patients = rng.zipf(1.8, 900) % 150
    y = (patients * 7 % 10 < 3).astype(int)  # patients of one class each
    columns = {"patient": patients.tolist(), "y": y.tolist()}
    parts = assign_rows(Split(SHARES, stratify=stratify, group="patient"), columns, 900, 0)
    check_partition(parts, 900)
    seen = [set(patients[rows].tolist()) for rows in parts.values()]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    largest = np.bincount(patients).max() / 900
    for name, share in SHARES:
        assert abs(len(parts[name]) / 900 - share) < max(0.02, largest)
        if stratify:
            assert abs(y[parts[name]].mean() - y.mean()) < 0.1


@pytest.mark.parametrize("as_text", [False, True])
def test_later_splits_are_later_and_equal_times_stay_together(as_text):
    days = np.random.default_rng(0).integers(0, 30, 400)
    first = datetime.date(2024, 1, 15)
    cells = [(first + datetime.timedelta(int(d))).isoformat() for d in days]
    columns = {"when": cells if as_text else days.tolist()}
    parts = assign_rows(Split(SHARES, time="when"), columns, 400, 0)
    check_partition(parts, 400)
    train, validation, test = (days[rows] for rows in parts.values())
    assert train.max() < validation.min() and validation.max() < test.min()
    assert abs(len(train) - 280) < 40


def test_folds_take_turns_as_test_split():
    y = np.random.default_rng(0).integers(0, 3, 101).tolist()
    tested, validated = [], []
    for fold in range(5):
        parts = assign_rows(Split(folds=5, fold=fold, stratify="y"), {"y": y}, 101, seed=3)
        check_partition(parts, 101)
        assert abs(len(parts["test"]) - 101 / 5) <= 1
        tested += parts["test"]
        validated.append(parts["validation"])
    assert sorted(tested) == list(range(101))
    again = assign_rows(Split(folds=5, fold=1, stratify="y"), {"y": y}, 101, seed=3)
    assert again["test"] == validated[0]
    other = assign_rows(Split(folds=5, fold=1, stratify="y"), {"y": y}, 101, seed=4)
    assert again["test"] != other["test"]


def test_folds_keep_groups_whole():
    groups = np.random.default_rng(0).integers(0, 40, 300).tolist()
    tested = []
    for fold in range(4):
        parts = assign_rows(Split(folds=4, fold=fold, group="g"), {"g": groups}, 300, 0)
        tested += sorted({groups[row] for row in parts["test"]})
    assert sorted(tested) == list(range(40))


def test_bad_ways_are_refused():
    columns = {"y": ["a", "b", None, "a"], "id": list("abcd"), "when": ["2024-01-01", "May", 3, 4]}
    for split, message in (
        (Split(stratify="y"), "row 2: column 'y' names no split"),
        (Split(stratify="id"), "has 4 values in 4 rows; stratify by a column of classes"),
        (Split(time="when"), "row 1, 'when': 'May' is not an ISO 8601 date"),
        (Split(time="when", group="id"), "a split by time cannot be stratified, grouped"),
        (Split(folds=2), "fold 0 of 2: give at least 3 folds"),
        (Split(folds=5, fold=5), "fold 5 of 5"),
        (Split((("train", 0.5), ("test", 0.6))), "shares must be positive and sum to 1"),
        (Split(), "the split 'test' gets none of 4 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            assign_rows(split, columns, 4, 0)


def test_tables_and_arrays_are_split(tmp_path):
    rows = [f"{i / 7},{'ab'[i % 5 == 0]},{i // 3}" for i in range(300)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y,family", *rows]))
    split = Split(stratify="y", group="family")
    data = from_table(tmp_path / "t.csv", {"x": "x"}, {"y": "y"}, split=split)
    assert [len(data.splits[s]) for s in ("train", "validation", "test")] == [240, 30, 30]
    arrays = {"x": np.arange(300.0), "y": ["ab"[i % 5 == 0] for i in range(300)]}
    parts = split_arrays(arrays, Split(folds=3, stratify="y"))
    for part in parts.values():
        assert isinstance(part["y"], list) and abs(part["y"].count("b") - 20) <= 1
        assert all((y == "b") == (x % 5 == 0) for x, y in zip(part["x"], part["y"], strict=True))
    part = ["test" if i % 20 < 6 else "train" for i in range(300)]
    named = Split(column="part", group="family")
    with pytest.warns(UserWarning, match="15 groups of column 'family' are in 'train' and in"):
        parts = split_arrays(arrays | {"part": part, "family": np.arange(300) // 4}, named)
    assert {name: len(p["x"]) for name, p in parts.items()} == {"train": 210, "test": 90}
    with pytest.raises(ValueError, match="array 'z' does not exist"):
        split_arrays(arrays, Split(group="z"))
