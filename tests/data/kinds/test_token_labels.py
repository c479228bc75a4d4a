"""Labels of tokens, and tags of character spans, aligned with the tokens of a text."""

from pathlib import Path

import numpy as np
import pytest

from mmjax.data import Spans, Text, TokenLabels, from_arrays
from mmjax.data.dataset import Task

NOTES = ["Ada met Lo.", "It rains", "Lo met Ada Lo", "Ada met it"]


@pytest.fixture
def words():
    return {"note": Text("note", level="word")}


@pytest.mark.filterwarnings("ignore:.*are unknown")
def test_one_class_per_token_is_padded_as_the_text_is(load, words):
    tags = ["N V N P", "N V", "", "N V N"]
    data = load({"note": NOTES, "tags": tags}, words, {"pos": TokenLabels("tags")})
    # The longest text has no labels, and is padded to four words as all are.
    assert data.tasks["pos"] == Task("sequence", ("N", "P", "V"), shape=(4,))
    train, test = (data.splits[s].batch for s in ("train", "test"))
    assert train.targets["pos"].tolist() == [[0, 2, 0, 1], [0, 2, -1, -1]]
    assert test.targets["pos"][1].tolist() == [0, 2, 0, -1]
    assert test.labeled["pos"].tolist() == [False, True]


def test_numbers_of_labels_and_tokens_must_agree(load, words):
    # The full stop is a token of its own.
    with pytest.raises(ValueError, match=r"line 2, 'pos': it has 3 labels, .*, but .*'note': 4"):
        load({"note": NOTES, "tags": ["N V N", "N V", "", ""]}, words, {"pos": TokenLabels("tags")})
    # Three numbers are no sequence of three steps.
    columns = {"note": NOTES, "tags": ["N V N", "N V", "", ""], "place": ["[1, 2, 3]"] * 4}
    with pytest.raises(ValueError, match=r"3 labels, \['N', 'V', 'N'\], but the .* {'note': 4} st"):
        load(columns, {**words, "place": "place"}, {"pos": TokenLabels("tags")})


@pytest.mark.filterwarnings("ignore:.*are unknown")
def test_spans_of_characters_become_tags_of_words(load, words):
    spans = [
        '[[0, 3, "WHO"], [8, 10, "WHO"]]',
        "[]",
        '[{"start": 7, "end": 13, "label": "WHO"}, {"start": 0, "end": 2, "label": "WHO"}]',
        "",
    ]
    data = load({"note": NOTES, "who": spans}, words, {"who": Spans(("who", "note"))})
    assert data.tasks["who"].classes == ("B-WHO", "I-WHO", "O")
    train, test = (data.splits[s].batch for s in ("train", "test"))
    names = np.array(["B", "I", "O", "-"])
    assert names[train.targets["who"]].tolist() == [["B", "O", "B", "O"], ["O", "O", "-", "-"]]
    assert names[test.targets["who"][0]].tolist() == ["B", "O", "B", "I"]


def test_spans_become_tags_of_bytes():
    got = Spans(("s", "t"), level="byte").read_cells(['[[1, 2, "X"]]', "aéb"], Path())
    assert got == ["O", "B-X", "I-X", "O"]  # é has two bytes
    cut = Spans(("s", "t"), longest=1).read_cells(['[[2, 3, "X"]]', "a b"], Path())
    assert cut == ["O"]


def test_spans_that_do_not_fit_are_refused():
    spec = Spans(("s", "t"))
    for cell, message in (
        ('[[0, 9, "X"]]', r"the span \[0, 9, 'X'\] is not inside of a text of 3 characters"),
        ('[[1, 2, "X"]]', "has no token of its own"),
        ("X", "is not a list of spans; write them as"),
        ("[[0, 1]]", "is not a list of spans; write them as"),
    ):
        with pytest.raises(ValueError, match=message):
            spec.read_cells([cell, "a b"], Path())


def test_arrays_of_labels_per_step():
    x = [np.ones((length, 2)) for length in (3, 1, 2, 3)] * 10
    y = [["A", "B", "B"], ["B"], [None, "A"], None] * 10
    batch = from_arrays({"train": {"x": x, "y": y}}, ["x"], ["y"]).splits["train"].batch
    assert batch.targets["y"][:3].tolist() == [[0, 1, 1], [1, -1, -1], [-1, 0, -1]]
    assert batch.labeled["y"][:4].tolist() == [True, True, True, False]
    padded = np.array([[2, 0, -1], [1, 1, 1]] * 20)
    task = Task("sequence", ("a", "b", "c"))
    arrays = {"train": {"x": x, "y": padded}}
    batch = from_arrays(arrays, ["x"], ["y"], tasks={"y": task}).splits["train"].batch
    np.testing.assert_array_equal(batch.targets["y"], padded)
    with pytest.raises(ValueError, match=r"has up to 4 labels, but the sequences have {'x': 3}"):
        from_arrays({"train": {"x": x, "y": [["A"] * 4] * 40}}, ["x"], ["y"])
