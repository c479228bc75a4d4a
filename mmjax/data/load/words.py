"""Segmentation of text into words, for all scripts."""

import functools
import re
import unicodedata

# Scripts without blanks between words, of which every character is a word of its own: Thai and Lao,
# Burmese, Khmer, the signs and letters of Japanese, and Chinese characters.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_JOINERS = "\u200c\u200d"  # of letters within a word, and of emoji within a picture
_LAST_MARK = 0x1F000  # no combining mark comes later, except for variation selectors


def split_words(text: str) -> list[str]:
    """Splits a text into words and punctuation marks, in lower case and in composed form (NFC).

    A word is a run of letters, digits and underscores; combining marks stay with their letters, as
    in हिन्दी. Every character of Chinese, Japanese, Thai, Lao, Khmer and Burmese, which have no
    blanks between words, is a word. Lower case is that of `str.lower`, so "Straße" keeps its ß.

    Example:
      >>> split_words("A Cat, 我们!")
      ['a', 'cat', ',', '我', '们', '!']
    """
    words = _compile_word_pattern().findall(text.lower())
    return words if text.isascii() else [unicodedata.normalize("NFC", word) for word in words]


def list_word_offsets(text: str) -> list[tuple[int, int]]:
    """Lists where each word of `split_words` begins and ends, in characters.

    Example:
      >>> list_word_offsets("A cat")
      [(0, 1), (2, 5)]
    """
    return [match.span() for match in _compile_word_pattern().finditer(text)]


@functools.cache
def _compile_word_pattern() -> re.Pattern[str]:
    # Python's \w has no combining marks.
    codes = (*range(0x300, _LAST_MARK), *range(0xE0100, 0xE01F0))
    marks = "".join(chr(c) for c in codes if unicodedata.category(chr(c)).startswith("M"))
    marks = re.escape(marks)
    return re.compile(
        rf"[{_UNSPACED}][{marks}]*"
        rf"|[^\W{_UNSPACED}](?:[\w{marks}{_JOINERS}](?<![{_UNSPACED}]))*"
        rf"|[^\w\s][{marks}]*(?:\u200d[^\w\s][{marks}]*)*"
    )
