"""Tables and pictures of data sets whose contents are known by hand."""

import numpy as np
import pytest
from PIL import Image

from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.data.describe import tables as module
from mmjax.data.describe.plot_examples import draw_examples, format_target, format_titles
from mmjax.data.describe.tables import describe_dataset, print_tables
from mmjax.data.kinds.text import decode_text
from mmjax.types import Batch

MODALITIES = {"word": Modality((4,), sequence=True), "photo": Modality((2, 3, 1))}
TASKS = {
    "animal": Task("classification", classes=("cat", "dog")),
    "traits": Task("multilabel", classes=("big", "tame", "wild")),
    "age": Task("regression", unit="years"),
}


def split(lengths, present, animals, traits, ages, labeled):
    """A split; words of given lengths, photos that are there where `present` says so."""
    count = len(lengths)
    everywhere = np.ones(count, bool)
    words = np.where(np.arange(4) < np.array(lengths)[:, None], 98, 0).astype(np.int32)  # "aaaa"
    return Arrays(
        Batch(
            inputs={"word": words, "photo": np.zeros((count, 2, 3, 1), np.uint8)},
            present={"word": everywhere, "photo": np.array(present)},
            lengths={"word": np.array(lengths, np.int32)},
            targets={
                "animal": np.array(animals, np.int32),
                "traits": np.array(traits, np.int32),
                "age": np.array(ages, np.float32),
            },
            labeled={"animal": everywhere, "traits": everywhere, "age": np.array(labeled)},
        )
    )


@pytest.fixture
def zoo():
    train = split(
        lengths=[1, 2, 3, 4],
        present=[True, True, False, True],
        animals=[0, 0, 0, 1],
        traits=[[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0]],
        ages=[1.0, 3.0, 99.0, 5.0],
        labeled=[True, True, False, True],
    )
    test = split([2], [True], [1], [[0, 0, 1]], [7.0], [False])
    facts = {"bayes_accuracy": {"animal": {"word": 0.75, "none": 0.5}}, "source": "a zoo"}
    return Dataset("zoo", MODALITIES, TASKS, {"train": train, "test": test}, facts)


def test_tables_are_the_counts_made_by_hand(zoo):
    tables = {table.title: table.rows for table in describe_dataset(zoo)}
    assert tables == {
        "Splits": [["", "train", "test"], ["examples", "4", "1"]],
        "Modalities": [
            ["", "shape", "type", "length", "missing in train", "missing in test"],
            ["word", "sequence, up to 4", "int32", "1 to 4, mean 2.4", "none", "none"],
            ["photo", "2 x 3 x 1", "uint8", "", "1 (25.0%)", "none"],
        ],
        "Tasks": [
            ["", "kind", "classes", "unit", "unlabeled in train", "unlabeled in test"],
            ["animal", "classification", "2", "", "none", "none"],
            ["traits", "multilabel", "3", "", "none", "none"],
            ["age", "regression", "", "years", "1 (25.0%)", "1 (100.0%)"],
        ],
        "animal: examples of each class": [
            ["", "train", "test"],
            ["cat", "3 (75.0%)", "0 (0.0%)"],
            ["dog", "1 (25.0%)", "1 (100.0%)"],
        ],
        "traits: examples that have a label": [
            ["", "train", "test"],
            ["big", "3 (75.0%)", "0 (0.0%)"],
            ["tame", "2 (50.0%)", "0 (0.0%)"],
            ["wild", "0 (0.0%)", "1 (100.0%)"],
        ],
        "age in years": [
            ["", "mean", "standard deviation", "lowest", "highest"],
            ["train", "3", f"{np.sqrt(8 / 3):.4g}", "1", "5"],
            ["test", "none", "none", "none", "none"],
        ],
        "bayes accuracy": [["", "word", "none"], ["animal", "0.75", "0.5"]],
        "source": [["", ""], ["source", "a zoo"]],
    }


def test_reading_in_parts_changes_nothing(zoo, monkeypatch):
    whole = describe_dataset(zoo)
    monkeypatch.setattr(module, "CHUNK", 3)
    assert describe_dataset(zoo) == whole


def test_of_many_classes_the_frequent_ones_are_listed():
    rng = np.random.default_rng(0)
    classes = np.concatenate([np.arange(50), rng.permutation(50)[:10]])
    batch = Batch(
        {"x": np.zeros((60, 2), np.float32)}, {"x": np.ones(60, bool)}, {},
        {"t": classes}, {"t": np.ones(60, bool)},
    )  # fmt: skip
    task = Task("classification", classes=tuple(f"c{i}" for i in range(50)))
    data = Dataset("many", {"x": Modality((2,))}, {"t": task}, {"train": Arrays(batch)})
    rows = describe_dataset(data)[-1].rows
    twice = {f"c{i}" for i in np.flatnonzero(np.bincount(classes) == 2)}
    assert {row[0] for row in rows[1:11]} == twice
    assert len(rows) == 1 + 40 + 1 and rows[-1] == ["and 10 rarer ones", ""]


def test_what_cannot_be_described_is_named(zoo):
    batch = zoo.splits["train"].batch
    empty = Arrays(batch).take(np.arange(0))
    with pytest.raises(ValueError, match="zoo, split 'test': it has no examples"):
        describe_dataset(Dataset("zoo", MODALITIES, TASKS, {**zoo.splits, "test": Arrays(empty)}))
    short = Arrays(batch._replace(lengths={}))
    with pytest.raises(ValueError, match="zoo, split 'train': lengths has no 'word'"):
        describe_dataset(Dataset("zoo", MODALITIES, TASKS, {"train": short}))


def test_tables_are_printed_whole(zoo, capsys):
    print_tables(describe_dataset(zoo))
    printed = capsys.readouterr().out
    for text in ("zoo", "2 x 3 x 1", "1 to 4, mean 2.4", "75.0%", "years", "bayes accuracy"):
        assert text in printed


def test_text_is_told_from_numbers():
    def stored(text):
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32) + 1

    assert decode_text(stored("trzy")) == "trzy"
    assert decode_text(stored("négy")) == "négy"
    assert decode_text(stored("négy")[:2]) == "n", "a cut letter is left out"
    assert decode_text(np.array([5, 6, 7])) is None, "control characters"
    assert decode_text(np.array([300, 5])) is None
    assert decode_text(np.array([0, 98])) is None, "padding"
    assert decode_text(np.array([1.0, 98.0])) is None
    assert decode_text(np.zeros(0, int)) is None


def test_labels_in_words(zoo):
    assert format_target(TASKS["animal"], np.int32(1)) == "dog"
    assert format_target(TASKS["traits"], np.array([1, 0, 1])) == "big, wild"
    assert format_target(TASKS["traits"], np.array([0, 0, 0])) == "none"
    assert format_target(TASKS["age"], np.float32(2.5)) == "2.5 years"
    batch = zoo.splits["train"].batch
    assert format_titles(zoo, batch, 2) == "animal: cat\ntraits: big\nage: –"
    assert format_titles(zoo, batch, 3) == "animal: dog\ntraits: tame\nage: 5 years"


@pytest.fixture(scope="module")
def gallery():
    """One modality of every kind, some of them missing."""
    rng = np.random.default_rng(0)
    count, everywhere = 2, np.ones(2, bool)
    inputs = {
        "grey": rng.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8),
        "colour": rng.normal(size=(count, 8, 8, 3)).astype(np.float32),
        "levels": rng.normal(size=(count, 9, 5)).astype(np.float32),
        "spectrogram": rng.integers(0, 256, (count, 9, 5), dtype=np.uint8),
        "film": rng.random((count, 4, 3, 3, 1)).astype(np.float32),
        "vector": rng.normal(size=(count, 40)).astype(np.float32),
        "number": rng.normal(size=count).astype(np.float32),
        "text": rng.integers(50, 120, (count, 30)).astype(np.int32),
        "curve": rng.normal(size=(count, 6)).astype(np.float32),
    }
    sequences = {"spectrogram": 9, "film": 4, "text": 30, "curve": 6}
    modalities = {m: Modality(x.shape[1:], m in sequences) for m, x in inputs.items()}
    present = dict.fromkeys(inputs, everywhere) | {"grey": np.arange(2) > 0, "film": ~everywhere}
    lengths = {m: rng.integers(1, longest + 1, count) for m, longest in sequences.items()}
    targets = {"price": rng.normal(size=count).astype(np.float32)}
    batch = Batch(inputs, present, lengths, targets, {"price": everywhere})
    tasks = {"price": Task("regression", unit="$")}
    return Dataset("gallery", modalities, tasks, {"train": Arrays(batch)})


def test_every_kind_of_modality_is_drawn(gallery, tmp_path):
    path = tmp_path / "sheet.png"
    assert draw_examples(gallery, path) == "train"
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width > 400 and image.height > 1500
        pixels = np.asarray(image.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500


def test_the_pixels_of_a_picture_are_those_of_the_example(tmp_path):
    """A photo of four flat quarters is found again on the sheet."""
    quarters = np.repeat(np.repeat([[10, 90], [170, 250]], 4, 0), 4, 1).astype(np.uint8)
    batch = Batch(
        {"x": quarters[None, :, :, None]}, {"x": np.ones(1, bool)}, {},
        {"t": np.zeros(1, int)}, {"t": np.ones(1, bool)},
    )  # fmt: skip
    task = Task("classification", classes=("only",))
    data = Dataset("one", {"x": Modality((8, 8, 1))}, {"t": task}, {"train": Arrays(batch)})
    draw_examples(data, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        grey = np.asarray(image.convert("L"))
    for level in (10, 90, 170, 250):
        assert (np.abs(grey.astype(int) - level) <= 1).mean() > 0.02


def test_steps_and_pixels_without_a_label_are_not_counted():
    here = np.ones(2, bool)
    batch = Batch(
        inputs={"x": np.zeros((2, 1), np.float32)},
        present={"x": here},
        lengths={},
        targets={
            "tags": np.array([[0, 1, -1], [1, 1, -1]], np.int32),
            "map": np.array([[[0, -1], [1, 1]], [[1, 1], [1, 1]]], np.int32),
            "far": np.array([[[0.0, 2.0], [4.0, 0.0]], [[9.0, 9.0], [9.0, 9.0]]], np.float32),
            "size": np.array([2, 0], np.int32),
        },
        labeled={"tags": here, "map": here, "far": np.array([True, False]), "size": here},
    )
    tasks = {
        "tags": Task("sequence", ("a", "b"), shape=(3,)),
        "map": Task("segmentation", ("sky", "road"), shape=(2, 2)),
        "far": Task("depth", unit="m", shape=(2, 2)),
        "size": Task("ordinal", ("s", "m", "l")),
    }
    data = Dataset("dense", {"x": Modality((1,))}, tasks, {"train": Arrays(batch)})
    tables = {table.title: table.rows for table in describe_dataset(data)}
    steps = tables["tags: steps of each class"]
    assert steps == [["", "train"], ["a", "1 (25.0%)"], ["b", "3 (75.0%)"]]
    pixels = tables["map: pixels of each class"]
    assert pixels == [["", "train"], ["sky", "1 (14.3%)"], ["road", "6 (85.7%)"]]
    assert tables["far in m"][1] == ["train", "3", "1", "2", "4"]
    assert tables["size: examples of each class"][3] == ["l", "1 (50.0%)"]
    first = {name: format_target(task, batch.targets[name][0]) for name, task in tasks.items()}
    assert first == {"tags": "a b –", "map": "2 x 2", "far": "2 x 2", "size": "l"}
