"""Allocates rows to splits of given shares: within strata, by whole groups, or by time."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmjax.data.kinds.date_time import parse_moment
from mmjax.data.load.tables.table_files import is_number
from mmjax.data.load.targets.labels import feature_to_python


def cut_evenly(rows: Int[np.ndarray, " n"], shares: Sequence[float]) -> list[np.ndarray]:
    """Cuts rows in their order; rounding the cumulative sums gives every row to one split."""
    ends = np.round(np.cumsum(shares) * len(rows)).astype(int)[:-1]
    return np.split(rows, ends)


def allocate_within_strata(
    strata: Int[np.ndarray, " n"], shares: Sequence[float], rng: np.random.Generator
) -> list[np.ndarray]:
    """Gives every split its share of every stratum, to within one row.

    What rounding takes from a split in one stratum it gets in a later one, so that the totals are
    right to within one row, too.
    """
    parts: list[list[int]] = [[] for _ in shares]
    owed = np.zeros(len(shares))
    for stratum in range(strata.max() + 1):
        rows = rng.permutation(np.flatnonzero(strata == stratum))
        owed += np.array(shares) * len(rows)
        counts = np.maximum(np.floor(owed + 1e-9), 0).astype(int)
        while counts.sum() > len(rows):  # a split that was owed more than this stratum has
            counts[np.argmin(np.where(counts > 0, owed - counts, np.inf))] -= 1
        while counts.sum() < len(rows):
            counts[np.argmax(owed - counts)] += 1
        owed -= counts
        for part, chosen in zip(parts, np.split(rows, np.cumsum(counts)[:-1]), strict=True):
            part += chosen.tolist()
    return [np.array(part, int) for part in parts]


def allocate_groups(
    groups: Int[np.ndarray, " n"],
    strata: Int[np.ndarray, " n"],
    shares: Sequence[float],
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Assigns whole groups, the largest first, to the split that lacks their classes most."""
    counts = np.zeros((groups.max() + 1, strata.max() + 1))
    np.add.at(counts, (groups, strata), 1)
    totals = counts.sum(axis=0)
    lacking = np.array(shares)[:, None] * totals[None]
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    split_of = np.zeros(len(counts), int)
    for group in order:
        # The choice that lowers the squared lack most, where rare classes weigh as much as others.
        split_of[group] = chosen = np.argmax((counts[group] / totals) @ lacking.T)
        lacking[chosen] -= counts[group]
    return [np.flatnonzero(split_of[groups] == part) for part in range(len(shares))]


def cut_by_time(times: Float[np.ndarray, " n"], shares: Sequence[float]) -> list[np.ndarray]:
    """Cuts the rows in the order of their times, and never between equal times."""
    order = np.argsort(times, kind="stable")
    ends = np.round(np.cumsum(shares) * len(order)).astype(int)[:-1]
    sorted_times = times[order]
    for i, end in enumerate(ends):
        while 0 < ends[i] < len(order) and sorted_times[ends[i]] == sorted_times[end - 1]:
            ends[i] += 1
    return np.split(order, ends)


def read_times(
    name: str, cells: Sequence[Any], place: Callable[[int], str]
) -> Float[np.ndarray, " n"]:
    """Converts cells to numbers: as they are, or as seconds since 1970."""
    if all(is_number(cell) and not isinstance(cell, bool) for cell in cells):
        return np.array([float(cell) for cell in cells])
    times = []
    for row, cell in enumerate(cells):
        try:
            times.append(parse_moment(feature_to_python(cell), None, "UTC").timestamp())
        except ValueError as error:
            raise ValueError(f"{place(row)}, {name!r}: {error}") from None
    return np.array(times)
