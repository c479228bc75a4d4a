"""Names of classes: from names or numbers, in order, and the index of each."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmjax.data.dataset import Task
from mmjax.data.load.targets.list_targets import LabelError
from mmjax.printing.escapes import escape_control_characters

_WHOLE_NUMBER = re.compile(r"(-?[0-9]+)\.0+")  # as tables write whole numbers beside empty cells
# A tuple, as `|` would make a new union for each of millions of labels.
_CLASS_TYPES = (str, int, float, np.integer, np.floating, np.bool_)


def sort_classes(names: set[str]) -> tuple[str, ...]:
    """Sorts the names of classes: by value if all are whole numbers, otherwise by name."""
    if all(_is_integer_name(n) for n in names):  # ties such as "1" and "01" are sorted by name
        return tuple(sorted(names, key=lambda n: (int(n), n)))
    return tuple(sorted(names))


def format_class_name(value: Any) -> str:
    """Returns the name of a class that is given as a name or as a number.

    Raises:
      ValueError: if it is neither; the message begins with the value.

    Example:
      >>> format_class_name(2.0), format_class_name("2.0"), format_class_name("oak")
      ('2', '2', 'oak')
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"{value!r}, which is not UTF-8; give names as text.") from None
    if not isinstance(value, _CLASS_TYPES):
        raise ValueError(
            f"{value!r} of type {type(value).__name__}; a class must be a name or a whole number: "
            "convert it to one, or to a number for a regression."
        )
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if whole := isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
        return whole.group(1)
    return str(value)


def make_class_encoder(task: Task) -> Callable[[Any], int]:
    """Makes the function that returns the index of a class; it raises LabelError for others."""
    index = {c: i for i, c in enumerate(task.classes)}
    # If a class is named "3", the number 3 means that name and not an index.
    by_index = not any(_is_integer_name(c) for c in task.classes)

    def encode_class(value: Any) -> int:
        number = index.get(format_class_name(value))
        if number is None and by_index and type(value) is int and 0 <= value < len(index):
            return value
        if number is None:
            names = ", ".join(task.classes[:20]) + (", ..." if len(index) > 20 else "")
            names = escape_control_characters(names)
            raise LabelError(
                f"{value!r}, which is none of its {len(index)} classes: {names}."
                f"{_suggest_class(value, task.classes)}"
            )
        return number

    return encode_class


def _suggest_class(value: Any, classes: Sequence[str]) -> str:
    """Suggests how to fix a name that is not a class of the training split."""
    simple = simplify_name(str(value))
    for name in classes:
        if simplify_name(name) == simple:
            return f" It differs from {name!r} in blanks or case only; write them alike."
    return (
        " If no training example has it, name all classes, as in Label(..., classes=...) or a Task "
        "of tasks=, leave the row out, or draw splits with Split(stratify=...)."
    )


def simplify_name(name: str) -> str:
    """Returns a name in lower case, with single blanks and one form of each character.

    Example:
      >>> simplify_name(" New  York")
      'new york'
    """
    return " ".join(unicodedata.normalize("NFKC", name).split()).casefold()


def _is_integer_name(name: str) -> bool:
    return name.lstrip("-").isdecimal() and name.isascii()
