"""Words of all scripts, and how many of them are unknown."""

import re

import numpy as np
import pytest

from mmjax.data import Text
from mmjax.data.load.words import list_word_offsets, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),  # vowel signs are combining marks
        ("caf\u00e9 cafe\u0301", ["caf\u00e9", "caf\u00e9"]),
        ("我们喜欢Tea3杯。", ["我", "们", "喜", "欢", "tea3", "杯", "。"]),
        ("タワーへ", ["タ", "ワ", "ー", "へ"]),
        ("ไทย กิน", ["ไ", "ท", "ย", "กิ", "น"]),  # a mark stays with its consonant
        ("한국어 책", ["한국어", "책"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("👩\u200d🚀❤\ufe0f!", ["👩\u200d🚀", "❤\ufe0f", "!"]),
        ("Straße ΟΔΟΣ", ["straße", "οδος"]),
        ("שָׁלוֹם", ["שָׁלוֹם"]),
    ],
)
def test_marks_stay_with_letters_and_scripts_without_blanks_are_split(text, words):
    import unicodedata

    assert split_words(text) == [unicodedata.normalize("NFC", word) for word in words]
    pieces = [text[start:end] for start, end in list_word_offsets(text)]
    assert [unicodedata.normalize("NFC", piece.lower()) for piece in pieces] == [
        unicodedata.normalize("NFC", word) for word in words
    ]


def test_words_of_alphabets_are_those_of_earlier_runs():
    pattern, rng = re.compile(r"\w+|[^\w\s]"), np.random.default_rng(0)
    alphabet = list("abcXYZ019_-'.,!? \t\näöüßéЖлΣσ€")
    for _ in range(300):
        text = "".join(rng.choice(alphabet, 30))
        assert split_words(text) == pattern.findall(text.lower())


@pytest.mark.filterwarnings("ignore:.*are unknown")
def test_unknown_words_are_counted_and_many_give_a_warning(load, capsys):
    spec = Text("note", level="word")
    load({"note": ["a b c", "a b d", "a b c", "a b d e f"]}, {"note": spec}, standardize=())
    assert "note: unknown tokens are 0.0% of train, 25.0% of test" in capsys.readouterr().err
