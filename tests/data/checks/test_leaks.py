"""Warnings about features that give a label away; none about those that only predict it well."""

import warnings

import numpy as np
import pytest

from mmjax.data import from_arrays, from_table

COUNT = 200
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, COUNT)
NOISE = RNG.normal(size=COUNT)


def make(x, y):
    return from_arrays({"train": {"x": x, "y": y}}, inputs=["x"], targets=["y"])


@pytest.mark.parametrize(
    ("x", "y", "what"),
    [
        (np.stack([NOISE, 10.0 * LABELS], axis=1), LABELS, "feature 1 of modality 'x'"),
        (np.where(np.arange(COUNT) == 5, 7, LABELS), LABELS, "the value of modality 'x'"),
        ([("no", "maybe", "yes")[c] for c in LABELS], LABELS, "the content of modality 'x'"),
        (np.stack([LABELS, 1.8 * NOISE + 32], axis=1), NOISE + 273.15, "feature 1 of modality 'x'"),
    ],
)
def test_what_is_one_to_one_with_the_target_is_named(x, y, what):
    with pytest.warns(UserWarning, match=rf"arrays: {what} gives the target 'y' away"):
        make(x, y)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (NOISE[:, None], (NOISE > 0).astype(int)),  # a threshold is what a model should learn
        (np.stack([LABELS % 2, NOISE], axis=1), LABELS),
        (np.where(RNG.random(COUNT) < 0.05, 0, LABELS), LABELS),
        (NOISE + 0.05 * RNG.normal(size=COUNT), NOISE),
        (NOISE[:20], NOISE[:20]),  # so few may agree by chance
        (NOISE, np.arange(COUNT)),  # all are different
    ],
)
def test_what_only_predicts_the_target_is_not(x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(x, y)


def test_a_column_of_a_table_is_checked(tmp_path):
    rows = [f"{i / 7},{'ab'[i % 2]},{['no', 'yes'][i % 2]}" for i in range(300)]
    (tmp_path / "t.csv").write_text("\n".join(["x,code,y", *rows]))
    with pytest.warns(UserWarning, match=r"'code' gives the target 'y' away"):
        from_table(tmp_path / "t.csv", {"x": "x", "code": "code"}, {"y": "y"})
