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


def learn_fills(columns: Sequence[Iterable[float]], fill: str) -> dict[str, Any]:
    """Computes what replaces the gaps of each column, and which columns have gaps.

    Args:
      columns: per column its filled cells as numbers, NaN for those that cannot be read; fewer
        cells in one than in another are gaps.
      fill: "mean" or "median".

    Returns:
      "fills", per column a number, or None if it has no cell, and "indicators", the positions of
      the columns that get an indicator.

    Raises:
      ValueError: if there is no such fill.

    Example:
      >>> learn_fills([[1.0, 3.0], [5.0]], "mean")
      {'fills': [2.0, 5.0], 'indicators': [1]}
    """
    if fill not in ("mean", "median"):
        raise ValueError(f"fill is {fill!r}; it must be 'mean' or 'median'.")
    average = np.nanmean if fill == "mean" else np.nanmedian
    arrays = [np.array(list(column), np.float64) for column in columns]
    rows = max(map(len, arrays))
    return {
        "fills": [None if np.isnan(array).all() else float(average(array)) for array in arrays],
        "indicators": [i for i, array in enumerate(arrays) if len(array) < rows],
    }


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
