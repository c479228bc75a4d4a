"""Truth values: spellings, gaps, and what is inferred."""

import pytest

from mmjax.data import Boolean


def test_spellings_and_gaps(load):
    columns = {
        "fee": ["Yes", "no", "T", "", "0", "y"],
        "paid": ["true", "FALSE", "1", "0", "f", ""],
    }
    data = load(columns, {"x": Boolean(("fee", "paid"))}, standardize=())
    third = pytest.approx(2 / 3)
    assert data.splits["train"].batch.inputs["x"].tolist() == [[1, 1], [0, 0], [1, 1]]
    assert data.splits["test"].batch.inputs["x"].tolist() == [[third, 0], [0, 0], [1, third]]


def test_true_and_false_are_inferred_but_no_other_words(load):
    data = load({"fee": ["True", "false", "TRUE", "False"]}, {"x": "fee"}, standardize=())
    assert data.splits["train"].batch.inputs["x"].tolist() == [[1], [0]]
    assert not Boolean.matches_cells(["yes", "no"])


def test_other_cells_are_refused_with_their_line(load):
    with pytest.raises(ValueError, match=r"line 4, 'x': 'maybe' is neither true nor false"):
        load({"fee": ["yes", "no", "maybe", "yes"]}, {"x": Boolean("fee")})
