"""The examples of every batch: their order is a pure function of (seed, epoch).

Any step's batch is therefore known from its number alone: data that lie on the device and data
that are streamed give the same batches, and a resumed run sees what the uninterrupted one sees.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int

from mmjax.data.sampling.grouped_order import SampleGroups, draw_grouped_order

Indices = Int[np.ndarray, "s k b"]


# Dispatches are fetched early by a few, so that two epochs are in use at their border.
@functools.lru_cache(maxsize=2)
def _draw_epoch_orders(
    seeds: tuple[int, ...],
    epoch: int,
    examples: int,
    groups: SampleGroups | None = None,
    batch_size: int = 1,
) -> Int[np.ndarray, "s n"]:
    """Draws the order in which an epoch visits the examples, for each seed.

    Only the order of groups depends on the batch size.
    """
    steps = examples // batch_size
    orders = np.empty((len(seeds), steps * batch_size), np.int32)
    for order, seed in zip(orders, seeds, strict=True):
        # Philox is counter-based: the key (seed, epoch) alone determines the order.
        rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
        if groups is None:
            order[:] = rng.permutation(examples)
        else:
            order[:] = draw_grouped_order(groups, rng, steps, batch_size)
    return orders


def make_train_indices(
    seeds: Sequence[int],
    examples: int,
    batch_size: int,
    start: int,
    stop: int,
    groups: SampleGroups | None = None,
) -> Indices:
    """Returns the examples of the steps from `start` to `stop`, which lie in one epoch.

    Every epoch has another order. Its last batch is dropped if it is incomplete. With groups,
    batches have shares of them; see `mmjax.data.sampling.grouped_order`.

    Example:
      >>> make_train_indices(seeds=[0], examples=5, batch_size=2, start=0, stop=2).shape
      (1, 2, 2)
    """
    epoch, first = divmod(start, examples // batch_size)
    steps = slice(first * batch_size, (first + stop - start) * batch_size)
    options = () if groups is None else (groups, batch_size)
    orders = _draw_epoch_orders(tuple(map(int, seeds)), epoch, examples, *options)[:, steps]
    return orders.reshape(len(seeds), stop - start, batch_size).copy()


def make_eval_indices(
    examples: int, batch_size: int, batches: int
) -> list[tuple[Int[np.ndarray, "k b"], Bool[np.ndarray, "k b"]]]:
    """Returns all examples once, in chunks of at most `batches` batches.

    Returns:
      (indices, valid) per chunk. All chunks have the same shape, so that one compiled program
      serves them; what fills up the last one is index 0, marked as not valid.

    Example:
      >>> [(indices, valid)] = make_eval_indices(examples=3, batch_size=2, batches=4)
      >>> indices.tolist(), valid.tolist()
      ([[0, 1], [2, 0]], [[True, True], [True, False]])
    """
    # Rounded up, since no example may be left out; index 0 fills the last batch, marked invalid.
    count = -(-examples // batch_size)
    count = -(-count // batches) * batches if count > batches else count
    positions = np.arange(count * batch_size).reshape(-1, min(count, batches), batch_size)
    valid = positions < examples
    return list(zip(np.where(valid, positions, 0).astype(np.int32), valid, strict=True))


@runtime_checkable
class IndexPlan(Protocol):
    """The indices of every dispatch, by its number; a list serves as well."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Indices: ...


@dataclasses.dataclass(frozen=True)
class TrainIndexPlan:
    """The indices of a training run: all that worker processes need to know of it.

    Attributes:
      seeds: the run's seeds, each with its own order.
      examples: size of the split.
      batch_size: examples per step.
      ranges: (start, stop) of every dispatch's steps, which lie in one epoch.
      groups: those that a sampler makes.
    """

    seeds: tuple[int, ...]
    examples: int
    batch_size: int
    ranges: tuple[tuple[int, int], ...]
    groups: SampleGroups | None = None

    def __len__(self) -> int:
        return len(self.ranges)

    def __getitem__(self, number: int) -> Indices:
        start, stop = self.ranges[number]
        return make_train_indices(
            self.seeds, self.examples, self.batch_size, start, stop, self.groups
        )
