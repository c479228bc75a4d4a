"""Assignment of the rows of one table to splits: at random, stratified, by group, time or fold."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from mmjax.data.checks.leaks import warn_about_shared_groups
from mmjax.data.load.allocate_rows import (
    allocate_groups,
    allocate_within_strata,
    cut_by_time,
    cut_evenly,
    read_times,
)

_DEFAULT_SHARES = (("train", 0.8), ("validation", 0.1), ("test", 0.1))


class Split(NamedTuple):
    """How one table, or one dictionary of arrays, becomes splits.

    `stratify` and `group` may be given together: then groups are distributed so that every split
    has nearly the same shares of classes.

    Attributes:
      shares: (name, share) per split, summing to 1.
      stratify: column of classes, whose shares are the same in all splits.
      group: column such as a patient's number; no group is in two splits.
      time: column of numbers, ISO 8601 texts or dates; each split is later than the one before it,
        and equal times are in one split.
      folds: number of folds of equal size, instead of shares: one is "test", the next one (cyclic)
        "validation", the others are "train"; 0: no folds.
      fold: the fold that is "test", from 0 on.
      column: column that names the split of each row, instead of shares; then groups that are in
        two splits give a warning.

    Example:
      >>> Split(folds=5, fold=2).list_names()
      ('train', 'validation', 'test')
    """

    shares: tuple[tuple[str, float], ...] = _DEFAULT_SHARES
    stratify: str | None = None
    group: str | None = None
    time: str | None = None
    folds: int = 0
    fold: int = 0
    column: str | None = None

    def list_columns(self) -> list[str]:
        """Lists the columns that the assignment needs."""
        names = (self.stratify, self.group, self.time, self.column)
        return [name for name in names if name is not None]

    def list_names(self) -> tuple[str, ...]:
        """Lists the names of the splits."""
        if self.folds:
            return ("train", "validation", "test")
        return tuple(name for name, _ in self.shares)

    def check(self) -> None:
        """Raises ValueError if the settings contradict each other."""
        shares = [share for _, share in self.shares]
        if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"split is {dict(self.shares)}; shares must be positive and sum to 1.")
        if self.column is not None and (self.stratify or self.time or self.folds):
            raise ValueError("rows whose split a column names are not stratified or in folds.")
        if self.time is not None and (self.stratify or self.group or self.folds):
            raise ValueError("a split by time cannot be stratified, grouped or in folds.")
        if self.folds and not (self.folds >= 3 and 0 <= self.fold < self.folds):
            raise ValueError(
                f"fold {self.fold} of {self.folds}: give at least 3 folds (one each for train, "
                "validation and test), and a fold from 0 on that is less."
            )


def assign_rows(
    split: Split,
    columns: Mapping[str, Sequence[Any]],
    examples: int,
    seed: int,
    place: Callable[[int], str] = "row {}".format,
) -> dict[str, list[int]]:
    """Assigns every row to one split.

    Args:
      split: the way.
      columns: {column: one cell per row} of the columns that `split` names; None is empty.
      examples: number of rows.
      seed: seed of the random order.
      place: returns where a row is, for messages.

    Returns:
      {split: its rows, in their order}.

    Raises:
      ValueError: if settings contradict each other, or a cell of a column is empty.

    Example:
      >>> split = Split((("train", 0.5), ("test", 0.5)), stratify="pet")
      >>> rows = assign_rows(split, {"pet": ["cat"] * 4 + ["dog"] * 2}, 6, seed=0)
      >>> [sum(row < 4 for row in rows[name]) for name in ("train", "test")]
      [2, 2]
    """
    rows_of = assign_row_arrays(split, columns, examples, seed, place)
    return {name: rows.tolist() for name, rows in rows_of.items()}


def assign_row_arrays(
    split: Split,
    columns: Mapping[str, Sequence[Any]],
    examples: int,
    seed: int,
    place: Callable[[int], str] = "row {}".format,
) -> dict[str, Int[np.ndarray, "..."]]:
    """Assigns every row to one split as `assign_rows` does; returns arrays."""
    split.check()
    for name in split.list_columns():
        for row, cell in enumerate(columns[name]):
            if cell is None or cell != cell:
                raise ValueError(f"{place(row)}: column {name!r} names no split.")
    if split.column is not None:
        return {n: np.array(rows) for n, rows in _split_by_names(split, columns).items()}
    names = split.list_names()
    if split.time is not None:
        times = read_times(split.time, columns[split.time], place)
        parts = cut_by_time(times, [share for _, share in split.shares])
    else:
        parts = _draw_parts(split, columns, examples, np.random.default_rng(seed))
    for name, rows in zip(names, parts, strict=True):
        if not len(rows):
            raise ValueError(
                f"the split {name!r} gets none of {examples} rows; give it a larger share, or "
                "split by a column with more groups or times."
            )
    return {name: np.sort(rows) for name, rows in zip(names, parts, strict=True)}


def _draw_parts(
    split: Split, columns: Mapping[str, Sequence[Any]], examples: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Draws the rows of each split: at random, within strata or by whole groups."""
    shares = [share for _, share in split.shares]
    if split.folds:
        shares = [1 / split.folds] * split.folds
    strata = np.zeros(examples, int)
    if split.stratify is not None:
        strata = _number_values(columns[split.stratify])
        _check_strata(split.stratify, strata)
    if split.group is not None:
        parts = allocate_groups(_number_values(columns[split.group]), strata, shares, rng)
    elif split.stratify is not None:
        parts = allocate_within_strata(strata, shares, rng)
    else:
        parts = cut_evenly(rng.permutation(examples), shares)
    return _merge_folds(parts, split.fold) if split.folds else parts


def _split_by_names(split: Split, columns: Mapping[str, Sequence[Any]]) -> dict[str, list[int]]:
    assert split.column is not None
    rows_of: dict[str, list[int]] = {}
    for row, cell in enumerate(columns[split.column]):
        rows_of.setdefault(str(cell), []).append(row)
    if split.group is not None:
        groups = columns[split.group]
        members = {name: [groups[row] for row in rows] for name, rows in rows_of.items()}
        warn_about_shared_groups("The table", split.group, members)
    return rows_of


def _check_strata(name: str, strata: Int[np.ndarray, " n"]) -> None:
    """Refuses a column most of whose values occur once: such values are not classes."""
    counts = np.bincount(strata)
    if len(counts) > 2 and (counts == 1).sum() > len(strata) / 2:
        raise ValueError(
            f"column {name!r}, by which to stratify, has {len(counts)} values in {len(strata)} "
            "rows; stratify by a column of classes."
        )


def split_arrays(
    arrays: Mapping[str, Any], split: Split, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Splits a dictionary of arrays or lists with one row per example, for `from_arrays`.

    Args:
      arrays: {name: array or list}; the columns of `split` are names of it.
      split: the way.
      seed: seed of the random order.

    Raises:
      ValueError: if arrays have different numbers of rows, or as `assign_rows`.

    Example:
      >>> pets = {"x": np.arange(10.0), "pet": ["cat", "dog"] * 5}
      >>> parts = split_arrays(pets, Split((("train", 0.6), ("test", 0.4)), stratify="pet"))
      >>> {name: len(part["x"]) for name, part in parts.items()}
      {'train': 6, 'test': 4}
    """
    sizes = {name: len(values) for name, values in arrays.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"the arrays have several sizes: {sizes}.")
    for name in split.list_columns():
        if name not in arrays:
            raise ValueError(f"array {name!r} does not exist; the arrays are {sorted(arrays)}.")
    columns = {name: list(arrays[name]) for name in split.list_columns()}
    rows_of = assign_rows(split, columns, next(iter(sizes.values())), seed)
    parts: dict[str, dict[str, Any]] = {}
    for part, rows in rows_of.items():
        parts[part] = {name: _take_rows(values, rows) for name, values in arrays.items()}
    return parts


def _take_rows(values: Any, rows: Sequence[int]) -> Any:
    if isinstance(values, list | tuple):
        return [values[row] for row in rows]
    return np.ma.asanyarray(values)[rows] if np.ma.isMA(values) else np.asarray(values)[rows]


def _number_values(cells: Sequence[Any]) -> Int[np.ndarray, " n"]:
    """Numbers the distinct cells in the order of their names, so that row order does not matter."""
    names = [str(cell) for cell in cells]
    index = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([index[name] for name in names])


def _merge_folds(parts: Sequence[np.ndarray], fold: int) -> list[np.ndarray]:
    """Returns the rows of train, validation and test."""
    validation = (fold + 1) % len(parts)
    train = [rows for i, rows in enumerate(parts) if i not in (fold, validation)]
    return [np.concatenate(train), parts[validation], parts[fold]]
