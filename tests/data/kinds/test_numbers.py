"""Numbers: gaps are filled by the training split, and vectors are read from text."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmjax.data import Numbers

A = ["1", "2", "6", "", "3", "", "7", "8"]
B = ["10", "", "", "40", "50", "60", "", "80"]


@pytest.mark.parametrize(("fill", "a", "b"), [("mean", 3.0, 25.0), ("median", 2.0, 25.0)])
def test_gaps_get_the_average_of_train_and_an_indicator(load, fill, a, b):
    spec = Numbers(("a", "b"), fill=fill)
    data = load({"a": A, "b": B}, {"body": spec}, standardize=())
    train, test = (data.splits[s].batch.inputs["body"] for s in ("train", "test"))
    assert train.tolist() == [[1, 10, 0, 0], [2, b, 0, 1], [6, b, 0, 1], [a, 40, 1, 0]]
    assert test.tolist() == [[3, 50, 0, 0], [a, 60, 1, 0], [7, b, 0, 1], [8, 80, 0, 0]]


def test_complete_columns_have_no_indicator_and_train_decides(load):
    data = load({"a": ["1", "2", "", "4"], "b": ["1", "1", "2", ""]}, {"x": Numbers(("a", "b"))},
                standardize=())  # fmt: skip
    assert data.splits["train"].batch.inputs["x"].tolist() == [[1, 1], [2, 1]]
    assert data.splits["test"].batch.inputs["x"].tolist() == [[1.5, 2], [4, 1]]


def test_rows_without_any_number_miss_the_modality(load):
    data = load({"a": ["1", "", "3", "4"], "b": ["1", "", "", "2"]}, {"x": Numbers(("a", "b"))})
    assert data.splits["train"].batch.present["x"].tolist() == [True, False]


def test_vectors_are_lists_or_text(load):
    cells = ["[1, 2.5]", "[3.5 4.]", " [5,6] ", "[7e1, -8]"]
    data = load({"v": cells}, {"v": "v"}, standardize=())  # inferred
    assert data.splits["train"].batch.inputs["v"].tolist() == [[1, 2.5], [3.5, 4]]
    assert data.splits["test"].batch.inputs["v"].tolist() == [[5, 6], [70, -8]]
    for cell, message in (
        ("[1, a]", r"'\[1, a\]': 'a' is not a number"),
        ("[1, null]", r"'\[1, null\]': None is not a number"),
        ("[1,, 2]", r"'\[1,, 2\]' is not a vector such as"),  # nothing is left out
        ('[1, "2_0"]', "'2_0' is not a number"),  # which Python reads as 20
        ("[]", "is not a vector such as"),
    ):
        with pytest.raises(ValueError, match=message):
            Numbers("v").read_cells([cell], Path(), {})


def test_bad_cells_are_named_with_their_line(load):
    with pytest.raises(ValueError, match=r"line 3, 'x': 'tall' is not a number"):
        load({"a": ["1", "tall", "2", "3"], "b": ["1", "", "2", "3"]}, {"x": Numbers(("a", "b"))})
    with pytest.raises(ValueError, match=r"column 'b' is empty in the training split"):
        load({"a": ["1", "2", "2", "3"], "b": ["", "", "2", "3"]}, {"x": Numbers(("a", "b"))})
    with pytest.raises(ValueError, match=r"fill is 'zero'; it must be 'mean' or 'median'"):
        load({"a": A, "b": B}, {"x": Numbers(("a", "b"), fill="zero")})


def test_what_is_learned_is_json():
    learned = Numbers(("a", "b")).learn([["1", "2"], ["3", None]], None)
    assert json.loads(json.dumps(learned)) == learned
    assert Numbers("a").learn([["1"]], None) == {}
    assert np.isfinite(learned["fills"]).all()
