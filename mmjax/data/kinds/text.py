"""Text: a sequence of integer tokens."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from mmjax.data.dataset import Modality
from mmjax.data.kinds.plotting import draw_text
from mmjax.data.kinds.protocols import Learned, RowScale, Summary
from mmjax.data.load.decode import BYTE_TOKEN_NAMES, decode_utf8
from mmjax.data.load.subwords import (
    encode_subwords,
    list_subword_numbers,
    list_subwords,
    read_tokenizer_file,
)
from mmjax.data.load.words import list_word_offsets, split_words

_UNKNOWN_TOKEN = 1  # 0 is padding


class Text(NamedTuple):
    """A sequence of integer tokens.

    0 is padding; with a `tokenizer` it is also a token, and the lengths tell them apart.

    Attributes:
      column: holds the text.
      level: "byte": UTF-8 bytes plus 1, so 257 tokens in all; "word": words and punctuation marks
        of any script in lower case, see `mmjax.data.load.words.split_words`, 1 for those that are
        not in the vocabulary.
      vocabulary: for words, the maximal number of tokens, including padding and the unknown word;
        the most frequent words of the training split are taken.
      longest: tokens after this many are cut off, but not the special tokens that a `tokenizer`
        adds; None keeps all.
      tokenizer: path of the tokenizer.json of a pretrained model, which decides instead of `level`
        and `vocabulary`; what padding and truncation it names is ignored. A run stores its content.

    Example:
      >>> tokenize("abc", Text("note"), {}).tolist()
      [98, 99, 100]
      >>> tokenize("A cat!", Text("note", level="word"), {"a": 2, "cat": 3}).tolist()
      [2, 3, 1]
    """

    column: str
    level: Literal["byte", "word"] = "byte"
    vocabulary: int = 10_000
    longest: int | None = None
    tokenizer: str | os.PathLike[str] | None = None

    @staticmethod
    def matches_cells(cells: Sequence[Any]) -> bool:
        """Returns True: every cell is a text at least."""
        return True

    def learn(self, columns: Sequence[Iterable[Any]], source: Any) -> dict[str, Any]:
        """Builds the vocabulary of words, or reads the tokenizer."""
        return self.learn_summary(self.summarize_cells(columns, source))

    def summarize_cells(self, columns: Sequence[Iterable[Any]], source: Any) -> dict[str, Any]:
        """Counts the words, if the vocabulary depends on them."""
        is_counted = self.tokenizer is None and self.level == "word"
        return {"counts": _count_words(columns[0])} if is_counted else {}

    def merge_summaries(self, first: Summary, second: Summary) -> dict[str, Any]:
        """Adds the counts."""
        if not first:
            return {}
        return {"counts": dict(Counter(first["counts"]) + Counter(second["counts"]))}

    def learn_summary(self, summary: Summary) -> dict[str, Any]:
        """Builds the vocabulary of words, or reads the tokenizer."""
        if self.tokenizer is not None:
            tokenizer = read_tokenizer_file(self.tokenizer)
            return {"words": list_subword_numbers(tokenizer), "tokenizer": tokenizer}
        if self.level != "word":
            return {}
        return {"words": _build_vocabulary(summary["counts"], self.vocabulary)}

    def read_cells(self, cells: Sequence[Any], folder: Path, learned: Learned) -> np.ndarray | None:
        """Tokenizes a cell."""
        return tokenize(str(cells[0]), self, learned.get("words", {}), learned.get("tokenizer", ""))

    def read_feature(self, values: Sequence[Any], learned: Learned) -> np.ndarray | None:
        """Tokenizes a text; None if it is empty."""
        if not isinstance(values[0], bytes | str):
            raise ValueError(f"it is of type {type(values[0]).__name__}, not a text.")
        return tokenize(values[0], self, learned.get("words", {}), learned.get("tokenizer", ""))

    def declare_modality(self, learned: Learned) -> Modality:
        """Returns a sequence with the name of each token."""
        words = learned.get("words", {})
        if self.tokenizer is not None:
            return Modality((), True, list_subwords(words))
        if self.level == "byte":
            return Modality((), True, BYTE_TOKEN_NAMES)
        return Modality((), True, ("padding", "unknown", *words))

    @staticmethod
    def name_axes(x: np.ndarray, modality: Modality) -> tuple[str, str] | None:
        """Returns empty names if the example is a printable text."""
        return None if decode_text(x) is None else ("", "")

    @staticmethod
    def draw(axis: Any, x: np.ndarray, scale: RowScale) -> None:
        """Writes the text."""
        draw_text(axis, decode_text(x) or "")


def tokenize(
    text: str | bytes, spec: Text, words: Mapping[str, int], tokenizer: str = ""
) -> Int[np.ndarray, " n"] | None:
    """Converts a text to tokens; None if there are none.

    Args:
      text: the text, as UTF-8 if it is bytes.
      spec: how to split it.
      words: the tokens of the known words; only needed for words.
      tokenizer: the content of the `tokenizer`, if the spec has one.

    Raises:
      UnreadableError: naming the offset of what is not UTF-8.
    """
    text = decode_utf8(text)
    if spec.tokenizer is not None:
        return encode_subwords(text, tokenizer, spec.longest)
    if spec.level not in ("byte", "word"):
        raise ValueError(f"a `Text` has no level {spec.level!r}, only 'byte' and 'word'.")
    if spec.level == "byte":
        tokens = np.frombuffer(text.encode(), np.uint8).astype(np.int32) + 1
    else:
        tokens = np.array([words.get(w, _UNKNOWN_TOKEN) for w in split_words(text)], np.int32)
    return tokens[: spec.longest] if tokens.size else None


def list_token_offsets(text: str, level: Literal["byte", "word"]) -> list[tuple[int, int]]:
    """Lists the first character of each token, and the one after its last.

    Example:
      >>> list_token_offsets("a café", "word")
      [(0, 1), (2, 6)]
      >>> list_token_offsets("é!", "byte")
      [(0, 1), (0, 1), (1, 2)]
    """
    if level == "word":
        return list_word_offsets(text)
    return [(i, i + 1) for i, character in enumerate(text) for _ in character.encode()]


def decode_text(x: np.ndarray) -> str | None:
    """Decodes tokens of bytes (byte plus 1); None if they are not those of a printable text."""
    if x.ndim != 1 or not len(x) or not np.issubdtype(x.dtype, np.integer):
        return None
    if x.min() < 1 or x.max() > 256:  # padding, or tokens of words
        return None
    # A sequence that was cut off may end within a character, which is ignored.
    text = (x.astype(int) - 1).astype(np.uint8).tobytes().decode("utf-8", errors="ignore")
    return text if text and text.isprintable() else None


def _count_words(texts: Iterable[Any]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split_words(decode_utf8(text if isinstance(text, bytes) else str(text))))
    return dict(counts)


def _build_vocabulary(counts: Mapping[str, int], size: int) -> dict[str, int]:
    """Numbers the most frequent words from 2; equally frequent ones are sorted by name."""
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: token for token, word in enumerate(ranked[: max(0, size - 2)], start=2)}
