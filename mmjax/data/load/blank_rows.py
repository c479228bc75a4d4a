"""Rows in which all inputs are empty: refused, dropped, or kept as gaps of the only modality."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from mmjax.data.kinds import Boolean, Category, Input, Numbers
from mmjax.data.kinds.protocols import Learned

BlankRows = Literal["refuse", "drop", "keep"]
_KEEP = "keep_blank_rows"  # a run stores it with what the training split says
_KINDS = (Numbers, Boolean, Category)


def check_blank_rows(blank_rows: str) -> None:
    """Raises ValueError if there is no such way."""
    if blank_rows not in ("refuse", "drop", "keep"):
        raise ValueError(f"blank_rows is {blank_rows!r}; it must be 'refuse', 'drop' or 'keep'.")


def learn_blank_rows(
    spec: Input, columns: Sequence[Iterable[Any]], modalities: int
) -> dict[str, Any]:
    """Learns from all rows, blank ones too, which are gaps then.

    Raises:
      ValueError: if the kind has no place for gaps, or there are other modalities.

    Example:
      >>> learned = learn_blank_rows(Numbers("age"), [["3", None, "5"]], 1)
      >>> learned["fills"], keeps_blank_rows(learned)
      ([4.0], True)
    """
    if modalities > 1 or not isinstance(spec, _KINDS):
        kind = type(spec).__name__
        raise ValueError(
            f"blank_rows='keep' is for one modality of Numbers, Boolean or Category, but there "
            f"{'are several' if modalities > 1 else f'is one of {kind}'}; give 'drop', or fill the "
            "cells."
        )
    return {**spec.learn(columns, None), _KEEP: True}


def keeps_blank_rows(learned: Learned) -> bool:
    """Checks whether rows in which all cells are empty are gaps."""
    return bool(learned.get(_KEEP, False))
