"""Fingerprints: the same for the same data, another one for any change that counts."""

import os

import numpy as np
import pytest

from mmjax.data import fingerprint as fingerprints
from mmjax.data import from_table, missing
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.data.fingerprint import compute_fingerprint
from mmjax.data.kinds import Image
from mmjax.data.normalize import Scale, StandardizedSource
from mmjax.types import Batch


def dataset(examples=40):
    rng = np.random.default_rng(0)
    some = np.ones(examples, bool)
    batch = Batch(
        {"a": rng.normal(size=(examples, 3)).astype("f"), "b": rng.integers(0, 9, (examples, 2))},
        {"a": some, "b": some},
        {},
        {"kind": rng.integers(0, 2, examples).astype(np.int32)},
        {"kind": some},
    )
    shapes = {"a": Modality((3,)), "b": Modality((2,))}
    tasks = {"kind": Task("classification", ("x", "y"))}
    return Dataset("d", shapes, tasks, {"train": Arrays(batch)})


def test_the_same_data_have_the_same_fingerprint():
    one, other = (dataset().splits["train"] for _ in range(2))
    assert compute_fingerprint(one) == compute_fingerprint(other)


@pytest.mark.parametrize("change", ["value", "order", "label", "mask", "type"])
def test_every_change_of_arrays_counts(change):
    source = dataset().splits["train"]
    before, batch = compute_fingerprint(source), source.batch
    if change == "value":
        batch.inputs["a"][7, 1] = np.nextafter(batch.inputs["a"][7, 1], np.float32(9))
    elif change == "order":
        batch.inputs["b"][[0, 1]] = batch.inputs["b"][[1, 0]]
    elif change == "label":
        batch.targets["kind"][-1] ^= 1
    elif change == "mask":
        batch.labeled["kind"][0] = False
    else:
        batch.inputs["b"] = batch.inputs["b"].astype(np.int32)
    assert compute_fingerprint(source) != before


def test_large_arrays_are_sampled_from_end_to_end(monkeypatch):
    monkeypatch.setattr(fingerprints, "_MAX_HASHED_BYTES", 1 << 12)
    monkeypatch.setattr(fingerprints, "_BLOCK_BYTES", 1 << 8)
    array = np.zeros(1 << 16, np.uint8)
    before = compute_fingerprint(array)
    assert compute_fingerprint(array.copy()) == before
    for place in (0, -1):
        changed = array.copy()
        changed[place] = 1
        assert compute_fingerprint(changed) != before


def test_how_a_source_reads_counts():
    rates = [(0.5, 0), (0.5, 1), (0.4, 0)]
    lossy = [missing.at_random(dataset(), modalities={"a": rate}, seed=s) for rate, s in rates]
    prints = [compute_fingerprint(data.splits["train"]) for data in (*lossy, dataset())]
    assert len(set(prints)) == 4


class Squares:
    """A source that mmjax knows nothing of."""

    def __init__(self, factor):
        self.factor = factor

    def __len__(self):
        return 100

    def take(self, indices):
        values = {"a": self.factor * indices[:, None].astype("f") ** 2}
        return Batch(values, {}, {}, {}, {})


def test_examples_of_an_unknown_source_count():
    assert (
        compute_fingerprint(Squares(1))
        == compute_fingerprint(Squares(1))
        != compute_fingerprint(Squares(2))
    )


def test_files_that_a_table_names_count(tmp_path):
    pytest.importorskip("PIL")
    from PIL import Image as Pictures

    rows = ["photo,kind,split"]
    for i in range(12):
        Pictures.new("L", (4, 4), i).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{'xy'[i % 2]},{'train' if i < 8 else 'test'}")
    (tmp_path / "table.csv").write_text("\n".join(rows))

    def prints():
        data = from_table(
            tmp_path / "table.csv",
            inputs={"photo": Image("photo")},
            targets={"kind": "kind"},
            split="split",
            in_memory=False,
        )
        return {split: compute_fingerprint(source) for split, source in data.splits.items()}

    before = prints()
    assert prints() == before
    os.utime(tmp_path / "9.png", (1, 1))
    after = prints()
    assert after["train"] == before["train"] and after["test"] != before["test"]


class Ramp:
    """A source that is read on demand."""

    def __len__(self):
        return 10

    def take(self, indices):
        every = np.ones(len(indices), bool)
        values = np.asarray(indices, np.float32)[:, None]
        return Batch({"a": values}, {"a": every}, {}, {"kind": indices % 2}, {"kind": every})


def test_fingerprints_stay_those_of_stored_runs():
    """Names of classes and functions are hashed, so that a new name must not change the hash."""
    tasks = {"kind": Task("classification", ("x", "y"))}
    data = Dataset("ramp", {"a": Modality((1,))}, tasks, {"train": Ramp()})
    lossy = (
        missing.at_random(data, modalities=0.5, labels={"kind": 0.25}, seed=3),
        missing.by_label(data, "kind", {"x": 0.5}, labels=["kind"], seed=3),
        missing.by_pattern(data, [(("a",), 1.0)], seed=3),
    )
    scales = {"a": Scale(np.zeros(1), np.ones(1))}
    sources = [d.splits["train"] for d in lossy]
    sources.append(StandardizedSource(Ramp(), data.modalities, scales))
    assert [compute_fingerprint(source)[:16] for source in sources] == [
        "1570d6f0165715ad",
        "721f8786cbc49bad",
        "664d0136c534f637",
        "b9fbbae99e8beb50",
    ]
