"""Subword tokens: text through the tokenizer.json of a pretrained model.

The text of the file, not its path, is passed around and stored, so that the file can be deleted.
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from mmjax.data.limits import LimitError, format_size

_MAX_TOKENIZER_BYTES = 1 << 26  # the largest of published models have some 17 MiB


def read_tokenizer_file(path: str | os.PathLike[str]) -> str:
    """Reads a tokenizer.json, as the `tokenizers` library writes it.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: if the library is not installed.
      ValueError: naming the file, if it is too large or not a tokenizer.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"tokenizer {path} does not exist; give the tokenizer.json of the pretrained model."
        )
    if (size := path.stat().st_size) > _MAX_TOKENIZER_BYTES:
        raise LimitError(
            f"{path} has {format_size(size)}, more than the {format_size(_MAX_TOKENIZER_BYTES)} "
            "that a tokenizer.json may have; give the tokenizer, not the weights."
        )
    try:
        tokenizer = path.read_bytes().decode("utf-8")
        _build_tokenizer(tokenizer, None)
    except ValueError as error:
        raise ValueError(f"{path} is not a tokenizer.json: {error}") from None
    return tokenizer


def encode_subwords(
    text: str, tokenizer: str, longest: int | None = None
) -> Int[np.ndarray, " n"] | None:
    """Converts a text to tokens, with the special tokens that the tokenizer puts around it.

    Args:
      text: one text.
      tokenizer: the text of a tokenizer.json, of which padding and truncation are ignored.
      longest: texts of more tokens are cut off so that the special tokens stay.

    Returns:
      The tokens; None if there are none but special ones.

    Raises:
      ValueError: if `longest` leaves no room for any token of the text.
    """
    encoding = _build_tokenizer(tokenizer, longest).encode(text)
    if all(encoding.special_tokens_mask):
        return None
    return np.array(encoding.ids, np.int32)


def list_subword_numbers(tokenizer: str) -> dict[str, int]:
    """Returns the number of each token, in their order.

    Example:
      >>> model = '"model": {"type": "WordLevel", "vocab": {"b": 2, "a": 0}, "unk_token": "a"}'
      >>> list_subword_numbers('{"added_tokens": [], ' + model + "}")
      {'a': 0, 'b': 2}
    """
    numbers = _build_tokenizer(tokenizer, None).get_vocab(with_added_tokens=True)
    return dict(sorted(numbers.items(), key=lambda item: item[1]))


def list_subwords(numbers: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the name of each token from 0 on; numbers without a token are "unused".

    Example:
      >>> list_subwords({"a": 0, "b": 2})
      ('a', 'unused', 'b')
    """
    names = ["unused"] * (max(numbers.values(), default=-1) + 1)
    for name, number in numbers.items():
        names[number] = name
    return tuple(names)


@functools.lru_cache(maxsize=16)
def _build_tokenizer(tokenizer: str, longest: int | None) -> Any:
    """Builds the library's tokenizer, once per process."""
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "Tokenizers need the library of that name: pip install 'mmjax[pretrained]'."
        ) from error
    try:
        built = tokenizers.Tokenizer.from_str(tokenizer)
    except Exception as error:  # the library raises nothing more special
        raise ValueError(f"the tokenizers library refuses it: {error}") from None
    built.no_padding()
    built.no_truncation()
    if longest is not None:
        special = built.num_special_tokens_to_add(is_pair=False)
        if longest <= special:
            raise ValueError(
                f"longest is {longest}, but the tokenizer adds {special} special tokens to each "
                f"text; give at least {special + 1}."
            )
        built.enable_truncation(longest)
    return built
