"""Gaps: the empty cells of a vector whose other cells are filled.

A gap gets the mean or the median of its column over the training split. A column that has gaps
there also gets an indicator, a number that is 1 at a gap and 0 elsewhere, since a value may be
missing for a reason (Little and Rubin, "Statistical Analysis with Missing Data", 2002).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from mmjax.data.kinds.protocols import Learned

Fill = Literal["mean", "median"]


def learn_fills(columns: Sequence[Iterable[float | None]], fill: str) -> dict[str, Any]:
    """Computes what replaces the gaps of each column, and which columns have gaps.

    Args:
      columns: per column its cells as numbers, None for gaps, NaN for those that cannot be read.
      fill: "mean" or "median".

    Returns:
      "fills", per column a number, or None if it has no cell, and "indicators", the positions of
      the columns that get an indicator.

    Raises:
      ValueError: if there is no such fill.

    Example:
      >>> learn_fills([[1.0, 3.0], [5.0, None]], "mean")
      {'fills': [2.0, 5.0], 'indicators': [1]}
    """
    if fill not in ("mean", "median"):
        raise ValueError(f"fill is {fill!r}; it must be 'mean' or 'median'.")
    average = np.nanmean if fill == "mean" else np.nanmedian
    fills: list[float | None] = []
    indicators = []
    for i, column in enumerate(columns):
        cells = list(column)
        known = np.array([cell for cell in cells if cell is not None], np.float64)
        fills.append(None if np.isnan(known).all() else float(average(known)))
        if len(known) < len(cells):
            indicators.append(i)
    return {"fills": fills, "indicators": indicators}


def fill_gaps(
    values: Sequence[float | None], names: Sequence[str], learned: Learned
) -> Float[np.ndarray, " d"]:
    """Replaces the gaps of one row, and appends the indicators.

    Args:
      values: one per column; None is a gap.
      names: of the columns, for messages.
      learned: what `learn_fills` returned.

    Raises:
      ValueError: naming a column that has a gap and no value in the training split.

    Example:
      >>> fill_gaps([1.0, None], ["a", "b"], {"fills": [2.0, 5.0], "indicators": [1]}).tolist()
      [1.0, 5.0, 1.0]
    """
    row = []
    for value, fill, name in zip(values, learned["fills"], names, strict=True):
        if value is None and fill is None:
            raise ValueError(f"column {name!r} is empty in the training split; leave it out.")
        row.append(fill if value is None else value)
    row += [float(values[i] is None) for i in learned["indicators"]]
    return np.array(row, np.float64)
