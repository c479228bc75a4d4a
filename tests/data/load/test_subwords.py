"""Text through a tokenizer.json: ids, special tokens, cut-off texts, stored content."""

import json

import numpy as np
import pytest

from mmjax.data import Label, Text, from_table
from mmjax.data.load.subwords import encode_subwords, read_tokenizer_file
from mmjax.data.spec import convert_spec_to_json, make_spec, parse_spec
from mmjax.provenance import digest_data

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "sat", "##s"]


@pytest.fixture
def file(tmp_path):
    """A WordPiece tokenizer as BERT's, whose file asks for padding and truncation."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=20)
    tokenizer.enable_truncation(4)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def make_table(folder, file, **options):
    notes = ["a cat", "dogs sat", "bird", "a cat sat a dog"] * 10
    rows = [f"{note},{'xy'[i % 2]}" for i, note in enumerate(notes)]
    table = folder / "notes.csv"
    table.write_text("\n".join(["note,kind", *rows]))
    kind = Text("note", longest=5, tokenizer=str(file))
    return from_table({"train": table}, {"note": kind}, {"kind": Label("kind")}, **options)


def test_special_tokens_stay_when_a_text_is_cut(file):
    tokenizer = read_tokenizer_file(file)
    assert encode_subwords("a cats bird", tokenizer).tolist() == [2, 4, 5, 8, 1, 3]
    assert encode_subwords("a cats bird", tokenizer, 5).tolist() == [2, 4, 5, 8, 3]
    assert encode_subwords(" ", tokenizer) is None
    with pytest.raises(ValueError, match=r"longest is 2, .* adds 2 special tokens .* at least 3"):
        encode_subwords("a", tokenizer, 2)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_table_has_ids_lengths_and_names(tmp_path, file, in_memory, capsys):
    data = make_table(tmp_path, file, in_memory=in_memory)
    assert data.modalities["note"].vocabulary == tuple(WORDS)
    batch = data.splits["train"].take(np.arange(40))
    rows = {tuple(row) for row in batch.inputs["note"].tolist()}
    expected = {(2, 4, 5, 3, 0), (2, 6, 8, 7, 3), (2, 1, 3, 0, 0), (2, 4, 5, 7, 3)}
    assert rows == expected and batch.inputs["note"].dtype == np.int32
    np.testing.assert_array_equal(batch.lengths["note"], (batch.inputs["note"] != 0).sum(1))


def test_a_run_stores_the_content_and_the_digest_of_the_file(tmp_path, file, capsys):
    from mmjax.files import compute_sha256

    data = make_table(tmp_path, file)
    assert digest_data({"all": data})["tokenizer of note"] == compute_sha256(file)
    stored = json.loads(json.dumps(convert_spec_to_json(make_spec(data))))
    content = file.read_bytes().decode()
    file.unlink()
    spec = parse_spec(stored)
    preparation = spec.preparations["note"]
    assert preparation.learned["tokenizer"] == content
    assert spec.modalities["note"].vocabulary == tuple(WORDS)
    ids = encode_subwords("a dogs", preparation.learned["tokenizer"], preparation.kind.longest)
    assert ids.tolist() == [2, 4, 6, 8, 3]


def test_what_is_not_a_tokenizer_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    with pytest.raises(FileNotFoundError, match="give the tokenizer"):
        read_tokenizer_file(path)
    for content in (b"{}", b"[", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"tokenizer.json is not a tokenizer.json: "):
            read_tokenizer_file(path)
    monkeypatch.setattr("mmjax.data.load.subwords._MAX_TOKENIZER_BYTES", 1)
    with pytest.raises(ValueError, match="2 B, more than the 1 B"):
        read_tokenizer_file(path)
