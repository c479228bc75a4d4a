"""Weights of examples from a column or an array: what is read, and what is refused."""

import dataclasses

import numpy as np
import pytest

from mmjax.data import from_arrays, from_table
from mmjax.data.describe.announce import announce_once
from mmjax.data.fingerprint import compute_fingerprint
from mmjax.train.checks.experiment_check import check_experiment

WEIGHTS = [2.0, 0.5, None, 0.0, 1.0, 3.0] * 20
KINDS = ["cat", "dog", None, "cat", "dog", "cat"] * 20


def read_array(weights, kinds=KINDS, **options):
    split = {"x": np.arange(120.0), "kind": kinds, "trust": weights}
    return from_arrays({"train": split}, ["x"], ["kind"], weights={"kind": "trust"}, **options)


def read_table(tmp_path, weights, kinds=KINDS, **options):
    cells = [("" if w is None else w, k or "") for w, k in zip(weights, kinds, strict=True)]
    path = tmp_path / "t.csv"
    path.write_text(
        "\n".join(["x,trust,kind", *(f"{i},{w},{k}" for i, (w, k) in enumerate(cells))])
    )
    weights = {"kind": "trust"}
    return from_table({"train": path}, {"x": "x"}, {"kind": "kind"}, weights=weights, **options)


@pytest.mark.parametrize("in_memory", [True, False])
def test_both_doors_read_the_same_weights(tmp_path, in_memory, capsys):
    announce_once.cache_clear()
    expected = [0.0 if k is None else w for w, k in zip(WEIGHTS, KINDS, strict=True)]
    table, arrays = read_table(tmp_path, WEIGHTS, in_memory=in_memory), read_array(WEIGHTS)
    assert "; weights 0 to 3" in capsys.readouterr().err
    for data in (table, arrays):
        batch = data.splits["train"].take(np.arange(120))
        assert batch.weights["kind"].tolist() == expected
        assert batch.weights["kind"].dtype == np.float32
    masked = np.ma.masked_invalid([np.nan if w is None else w for w in WEIGHTS])
    assert read_array(masked).splits["train"].batch.weights["kind"].tolist() == expected


@pytest.mark.parametrize(
    ("row", "weight", "message"),
    [
        (3, -1.0, r"weight of task 'kind' is -1.0; it must be 0, or from 1e-20 to 1e\+20"),
        (4, float("inf"), r"weight of task 'kind' is inf"),
        (5, 1e30, r"weight of task 'kind' is 1e\+30"),
        (1, 1e-30, r"weight of task 'kind' is 1e-30"),
        (0, None, r"weight of task 'kind' is missing, but the row has a label"),
    ],
)
def test_bad_weights_are_refused_with_their_place(tmp_path, row, weight, message):
    weights = [*WEIGHTS]
    weights[row] = weight
    with pytest.raises(ValueError, match=f"row {row} of 'train': {message}"):
        read_array(weights)
    finite = weight is None or np.isfinite(weight)
    where = f"line {row + 2}: {message}" if finite else f"line {row + 2}, column 'trust'.* finite"
    with pytest.raises(ValueError, match=where):
        read_table(tmp_path, weights)


def test_what_is_not_a_weight_is_refused(tmp_path, toy):
    with pytest.raises(ValueError, match=r"'trust' of split 'train' must be one number per row"):
        read_array(["much"] * 120)
    with pytest.raises(ValueError, match=r"line 2, column 'trust': weight of task 'kind': 'much'"):
        read_table(tmp_path, ["much"] * 120)
    with pytest.raises(ValueError, match=r"weights names 'kin'; the targets are \['kind'\]"):
        from_arrays({"train": {}}, ["x"], ["kind"], weights={"kin": "trust"})
    with pytest.raises(ValueError, match=r"task 'kind' has only labels of weight 0"):
        read_array([0.0] * 120)
    data = toy.dataset()
    train = data.splits["train"].batch
    for weights, message in [
        (np.zeros(128), "has only labels of weight 0"),
        (np.full(128, np.nan), r"row \d+: weight of task 'kind' is missing"),
        (np.ones(127), r"weight of task 'kind' has shape \(127,\)"),
    ]:
        source = dataclasses.replace(
            data.splits["train"], batch=train._replace(weights={"kind": weights})
        )
        changed = dataclasses.replace(data, splits={**data.splits, "train": source})
        with pytest.raises(ValueError, match=message):
            check_experiment(toy.experiment(data=changed), 1)


def test_weights_of_rows_left_out_are_left_out(tmp_path):
    from PIL import Image

    rows = ["image,trust,kind"]
    for i in range(8):
        path = tmp_path / f"{i}.png"
        if i == 2:
            path.write_bytes(b"damaged")
        else:
            Image.fromarray(np.full((4, 4), i, np.uint8)).save(path)
        rows.append(f"{path.name},{i},{'ab'[i % 2]}")
    table = tmp_path / "t.csv"
    table.write_text("\n".join(rows))
    options = {"weights": {"kind": "trust"}, "skip_unreadable": True}
    with pytest.warns(UserWarning, match="left out 1 of the 8 examples"):
        data = from_table({"train": table}, {"image": "image"}, {"kind": "kind"}, **options)
    batch = data.splits["train"].batch
    assert batch.weights["kind"].tolist() == [0, 1, 3, 4, 5, 6, 7]
    np.testing.assert_array_equal(batch.weights["kind"], batch.inputs["image"][:, 0, 0, 0])


def test_other_weights_are_other_data():
    others = [*WEIGHTS[:-1], 4.0]
    prints = {compute_fingerprint(read_array(w).splits["train"]) for w in (WEIGHTS, others)}
    assert len(prints) == 2
