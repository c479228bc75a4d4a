"""Limits on the values that a user types: they must be fit to store, print and compute with."""

import math
from typing import Any

from mmjax.config.errors import ConfigError

# Functions that traverse a value are recursive, and their time grows with its length.
MAX_LENGTH = 10_000
MAX_DEPTH = 30
_MAX_BITS = 1024  # of a whole number; no float is larger
_MAX_SHOWN = 300  # characters of a value in a message


def check_literal(value: Any, depth: int = 0) -> None:
    """Refuses literals that cannot be stored, shown or computed with."""
    if depth > MAX_DEPTH:
        raise ConfigError(f"the value is nested too deeply; {MAX_DEPTH} levels are the most.")
    # Formatting a whole number takes quadratic time in its digits.
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise ConfigError(
            f"the value has a number of {value.bit_length()} bits, which is too large."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError("the value has a number that is too large for a float.")
    if isinstance(value, str):
        check_is_unicode("the value", value)
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set):
        for item in value:
            check_literal(item, depth + 1)


def check_is_unicode(what: str, text: str) -> None:
    """Refuses text that is not valid Unicode, such as arguments of another terminal's encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{what} is not valid Unicode: {shorten_for_message(text)}.") from None


def shorten_for_message(text: str) -> str:
    """Shortens text for a message of one line, without control characters."""
    printable = text if text.isprintable() else ascii(text)
    return printable if len(printable) <= _MAX_SHOWN else f"{printable[:_MAX_SHOWN]}..."
