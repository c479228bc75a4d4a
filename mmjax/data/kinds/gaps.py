"""Gaps: the empty cells of a vector whose other cells are filled.

A gap gets the mean or the median of its column over the training split. A column that has gaps
there also gets an indicator, a number that is 1 at a gap and 0 elsewhere, since a value may be
missing for a reason (Little and Rubin, "Statistical Analysis with Missing Data", 2002).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from mmjax.data.kinds.protocols import Learned, Summary

Fill = Literal["mean", "median"]


def summarize_gaps(columns: Sequence[Iterable[float | None]], fill: str) -> dict[str, Any]:
    """Computes the average of each column in some rows, and counts its gaps.

    Args:
      columns: per column its cells as numbers, None for gaps, NaN for those that cannot be read.
      fill: "mean" or "median".

    Returns:
      Per column "counts" (of numbers), "means" and "gaps", and for a median "values".

    Raises:
      ValueError: if there is no such fill.

    Example:
      >>> summarize_gaps([[1.0, 3.0], [5.0, None]], "mean")
      {'counts': [2, 1], 'means': [2.0, 5.0], 'gaps': [0, 1]}
    """
    if fill not in ("mean", "median"):
        raise ValueError(f"fill is {fill!r}; it must be 'mean' or 'median'.")
    summary: dict[str, Any] = {"counts": [], "means": [], "gaps": []}
    if fill == "median":
        summary["values"] = []
    for column in columns:
        cells = list(column)
        known = np.array([cell for cell in cells if cell is not None], np.float64)
        summary["gaps"].append(len(cells) - len(known))
        known = known[~np.isnan(known)]
        summary["counts"].append(len(known))
        summary["means"].append(float(known.mean()) if len(known) else 0.0)
        if fill == "median":
            summary["values"].append(known.tolist())
    return summary


def merge_gaps(first: Summary, second: Summary) -> dict[str, Any]:
    """Merges two results of `summarize_gaps`.

    Example:
      >>> merge_gaps(summarize_gaps([[1.0]], "mean"), summarize_gaps([[4.0, 4.0, None]], "mean"))
      {'counts': [3], 'means': [3.0], 'gaps': [1]}
    """
    merged: dict[str, Any] = {
        key: [a + b for a, b in zip(first[key], second[key], strict=True)]
        for key in ("counts", "gaps", "values")
        if key in first
    }
    means = []
    for i, count in enumerate(merged["counts"]):
        mean, other = first["means"][i], second["means"][i]
        means.append(mean + (other - mean) * second["counts"][i] / max(1, count))
    return {"counts": merged["counts"], "means": means, **merged}


def learn_fills(summary: Summary, fill: str) -> dict[str, Any]:
    """Returns what replaces the gaps of each column, and which columns have gaps.

    Args:
      summary: what `summarize_gaps` returned for the training split.
      fill: "mean" or "median".

    Returns:
      "fills", per column a number, or None if it has no cell, and "indicators", the positions of
      the columns that get an indicator.

    Example:
      >>> learn_fills(summarize_gaps([[1.0, 3.0], [5.0, None]], "mean"), "mean")
      {'fills': [2.0, 5.0], 'indicators': [1]}
    """
    averages = summary["means"]
    if fill == "median":
        averages = [float(np.median(v)) if v else 0.0 for v in summary["values"]]
    pairs = zip(averages, summary["counts"], strict=True)
    fills = [average if count else None for average, count in pairs]
    return {"fills": fills, "indicators": [i for i, gaps in enumerate(summary["gaps"]) if gaps]}


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
