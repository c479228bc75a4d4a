"""Corruptions of texts [time] of integer tokens: bytes plus 1, words or subwords.

The length of a text stays. See docs/robustness.md for units and levels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from mmjax.modalities.robustness.corruption import Corruption, Level, draw_mask

_KEY_ROWS = (("1234567890", -0.5), ("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))
_REACH = 1.3  # widths of a key between the centers of neighboring keys, at most


def swap_neighbors() -> Corruption:
    """Swaps adjacent tokens: each pair with probability `level`; pairs do not overlap.

    The pairs begin at the first token or at the second one, each equally likely.

    Example:
      >>> swapped = swap_neighbors()(jax.random.key(3), jnp.array([5, 6, 7, 0]), jnp.int32(3), 1.0)
      >>> sorted(swapped[:3].tolist()), int(swapped[3])
      ([5, 6, 7], 0)
    """

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None, level: Level) -> Array:
        end = _get_length(x, length)
        offset_key, pair_key = jax.random.split(key)
        offset = jax.random.randint(offset_key, (), 0, 2)
        position = jnp.arange(len(x))
        pair, second = jnp.divmod(position - offset, 2)
        partner = position + 1 - 2 * second
        # A pair has one draw; the position before the first pair has the pair -1.
        swaps = draw_mask(pair_key, level, x.shape)[jnp.maximum(pair, 0)] & (pair >= 0)
        swaps &= jnp.maximum(position, partner) < end
        return x[jnp.where(swaps, partner, position)]

    return _corrupt_tokens(apply)


def mistype_letters() -> Corruption:
    """Replaces each letter and digit of ASCII by a neighbor on a QWERTY keyboard.

    That happens with probability `level`; each neighbor is equally likely, and the case stays.
    Other bytes are not changed.

    Example:
      >>> typed = mistype_letters()(jax.random.key(0), jnp.array([ord("q") + 1]), None, 1.0)
      >>> chr(int(typed[0]) - 1) in "12wa"
      True
    """
    neighbors, counts = make_keyboard_table()

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None, level: Level) -> Array:
        where_key, choice_key = jax.random.split(key)
        typed = jnp.clip(x, 0, len(counts) - 1)
        number = jnp.asarray(counts)[typed]
        choice = jax.random.randint(choice_key, x.shape, 0, jnp.maximum(number, 1))
        mistakes = draw_mask(where_key, level, x.shape) & (number > 0)
        return jnp.where(mistakes, jnp.asarray(neighbors)[typed, choice].astype(x.dtype), x)

    return _corrupt_tokens(apply)


def omit_tokens(fill: int) -> Corruption:
    """Omits each token with probability `level`; those after it move up, and `fill` ends the text.

    Example:
      >>> omit_tokens(fill=33)(jax.random.key(0), jnp.array([5, 6, 7]), None, 1.0).tolist()
      [33, 33, 33]
    """

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None, level: Level) -> Array:
        inside = jnp.arange(len(x)) < _get_length(x, length)
        stays = inside & ~draw_mask(key, level, x.shape)
        moved = x[jnp.argsort(~stays, stable=True)]
        return jnp.where(jnp.arange(len(x)) < stays.sum(), moved, jnp.array(fill, x.dtype))

    return _corrupt_tokens(apply)


def repeat_tokens() -> Corruption:
    """Doubles each token with probability `level` (sticky keys); what is too long is cut off.

    Example:
      >>> repeat_tokens()(jax.random.key(0), jnp.array([5, 6, 7]), None, 1.0).tolist()
      [5, 5, 6]
    """

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None, level: Level) -> Array:
        ends = jnp.cumsum(1 + draw_mask(key, level, x.shape))  # of each token in the longer text
        return x[jnp.searchsorted(ends, jnp.arange(len(x)), side="right")]

    return _corrupt_tokens(apply)


def drop_tokens(fill: int) -> Corruption:
    """Replaces each token by `fill` with probability `level`.

    Example:
      >>> drop_tokens(fill=1)(jax.random.key(0), jnp.array([5, 6, 7]), None, 1.0).tolist()
      [1, 1, 1]
    """

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None, level: Level) -> Array:
        return jnp.where(draw_mask(key, level, x.shape), jnp.array(fill, x.dtype), x)

    return _corrupt_tokens(apply)


def make_keyboard_table() -> tuple[Int[np.ndarray, "257 k"], Int[np.ndarray, " 257"]]:
    """Makes the table of the neighbors of each byte plus 1 on a QWERTY keyboard, and their numbers.

    Example:
      >>> neighbors, counts = make_keyboard_table()
      >>> token = ord("G") + 1
      >>> "".join(sorted(chr(t - 1) for t in neighbors[token, : counts[token]]))
      'BFHTVY'
    """
    places = {}
    for row, (keys, shift) in enumerate(_KEY_ROWS):
        for column, letter in enumerate(keys):
            places[letter] = complex(column + shift, row)
    near = {a: [b for b in places if 0 < abs(places[a] - places[b]) < _REACH] for a in places}
    near |= {a.upper(): [b.upper() for b in others] for a, others in near.items() if a.isalpha()}
    table = np.zeros((257, max(map(len, near.values()))), np.int32)
    counts = np.zeros(257, np.int32)
    for letter, others in near.items():
        token = ord(letter) + 1
        counts[token] = len(others)
        table[token, : len(others)] = [ord(other) + 1 for other in others]
    return table, counts


def _get_length(x: Array, length: Int[Array, ""] | None) -> Array:
    return jnp.asarray(len(x) if length is None else length)


def _corrupt_tokens(apply: Corruption) -> Corruption:
    """Makes a corruption that refuses what is not a text."""

    def checked(
        key: Key[Array, ""], x: Array, length: Int[Array, ""] | None, level: Level
    ) -> Array:
        if x.ndim != 1 or not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(
                f"a text is integer tokens [time], but the input is {x.dtype}{list(x.shape)}; say "
                "by `kinds` what kind of input it is."
            )
        return apply(key, x, length, level)

    return checked
