"""Checks the indexes of pandas' columns, which may be in different orders."""

import itertools
from collections.abc import Mapping
from typing import Any


def check_same_index(what: str, columns: Mapping[str, Any]) -> None:
    """Refuses columns of pandas with different indexes, by which pandas would pair other rows.

    Args:
      what: what has the columns, for the message.
      columns: {name: column}, of any type.

    Raises:
      ValueError: naming two columns with different indexes.

    Example:
      >>> import pandas
      >>> a = pandas.Series([1, 2])
      >>> check_same_index("the table", {"a": a, "b": a * 2, "c": [3, 4]})
    """
    indexes: dict[str, Any] = {}
    for name, column in columns.items():
        if hasattr(getattr(column, "index", None), "equals"):  # lists have a method of this name
            indexes[name] = column.index
    for first, name in itertools.pairwise(indexes):
        if not indexes[name].equals(indexes[first]):
            raise ValueError(
                f"{what}: {first!r} and {name!r} have different indexes, so that their rows may "
                "not belong together; join them in one DataFrame, or give their values: "
                "reset_index(drop=True) keeps the order of the rows."
            )
