"""Orders of examples whose batches have given shares of groups, such as classes or tasks."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True, eq=False)
class SampleGroups:
    """A partition of a split's examples, and the share of each part in every batch.

    Equal by identity, so that orders can be cached.

    Attributes:
      of_row: each example's group; -1 for examples that are never drawn.
      shares: expected share of each group, none of which is empty, in a batch; they sum to 1.
    """

    of_row: Int[np.ndarray, " n"]
    shares: Float[np.ndarray, " g"]


def draw_grouped_order(
    groups: SampleGroups, rng: np.random.Generator, steps: int, batch_size: int
) -> Int[np.ndarray, " m"]:
    """Draws one epoch's examples, batch by batch.

    Every batch has a group's share of its examples, rounded up or down, and so has the whole epoch.
    No example of a group is repeated before all others of the group have been drawn.

    Args:
      groups: the groups.
      rng: the random generator.
      steps: number of batches.
      batch_size: examples per batch.

    Example:
      >>> groups = SampleGroups(np.array([0, 0, 0, 0, 0, 1]), np.array([0.5, 0.5]))
      >>> order = draw_grouped_order(groups, np.random.default_rng(0), steps=2, batch_size=4)
      >>> groups.of_row[order].reshape(2, 4).sum(axis=1)
      array([2, 2])
    """
    group_of, batch_of = _allot_places(groups.shares, rng, steps, batch_size)
    # Random within a batch, so that its parts on several devices are alike.
    group_at = group_of[np.lexsort((rng.random(len(group_of)), batch_of))]
    counts = np.bincount(group_at, minlength=len(groups.shares))
    order = np.empty(len(group_at), np.int32)
    # `_draw_rows` returns rows group by group. The stable sort lists the places of each group in
    # the order of the batches, so that a group's rows keep the order in which they were drawn.
    order[np.argsort(group_at, kind="stable")] = _draw_rows(groups.of_row, counts, rng)
    return order


def _allot_places(
    shares: Float[np.ndarray, " g"], rng: np.random.Generator, steps: int, batch_size: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Returns the group and the batch of every place of an epoch, in no particular order.

    A group gets its share of every batch, rounded down, and some batches one more. These are given
    out in turn, group after group: so a batch gets at most one of each group, and all batches get
    the same number.
    """
    exact = shares * batch_size
    base = np.floor(exact + 1e-9).astype(np.int64)  # a share may be 1e-16 short of a whole number
    # The fractional parts of all shares, times the number of batches, are the places still free.
    extras = _round_to_sum((exact - base) * steps, steps * (batch_size - int(base.sum())))
    shuffled = rng.permutation(len(shares))  # else neighbors would often share batches
    group_of_extra = np.repeat(shuffled, extras[shuffled])
    # Dealt in turn, like cards: a group has at most `steps` extras, so no batch gets two of them.
    batch_of_extra = np.arange(len(group_of_extra)) % steps
    group_of_base = np.tile(np.repeat(np.arange(len(shares)), base), steps)
    batch_of_base = np.repeat(np.arange(steps), base.sum())
    # Permuted batches, so that which batch gets an extra does not depend on its position.
    batch_of = np.concatenate([batch_of_base, batch_of_extra])
    return np.concatenate([group_of_base, group_of_extra]), rng.permutation(steps)[batch_of]


def _round_to_sum(values: Float[np.ndarray, " g"], total: int) -> Int[np.ndarray, " g"]:
    """Rounds the numbers with the largest fractions up, others down, to a given sum."""
    # The largest-remainder method: round all down, then the largest fractions up.
    whole = np.floor(np.maximum(values, 0)).astype(np.int64)
    largest = np.argsort(whole - values, kind="stable")[: total - int(whole.sum())]
    whole[largest] += 1
    return whole


def _draw_rows(
    of_row: Int[np.ndarray, " n"], counts: Int[np.ndarray, " g"], rng: np.random.Generator
) -> Int[np.ndarray, " m"]:
    """Draws `counts` rows of each group: its random orders one after another, the last one cut.

    Returns:
      The rows of the first group, then those of the second, and so on.
    """
    rows = np.flatnonzero(of_row >= 0)
    sizes = np.bincount(of_row[rows], minlength=len(counts))
    # Number of passes over a group that its count needs: ceil(count / size), given per row.
    repeats = (-(-counts // np.maximum(sizes, 1)))[of_row[rows]]
    copies = np.repeat(rows, repeats)
    # The pass to which a copy belongs: 0 for the first copy of a row, 1 for the second, and so on.
    cycle = np.arange(len(copies)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    group = of_row[copies]
    # Sorted by group, then by pass, and at random within a pass: a pass ends before the next one
    # begins, so that no row is drawn again before all others.
    shuffled = np.lexsort((rng.random(len(copies)), cycle, group))
    copies, group = copies[shuffled], group[shuffled]
    # Position within the group; `searchsorted` returns where each group begins.
    rank = np.arange(len(copies)) - np.searchsorted(group, group)
    return copies[rank < counts[group]]
