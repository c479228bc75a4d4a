"""Which examples make which batch, and how they reach the devices.

The order is a pure function of (seed, epoch), so that any step's batch is known from its number
alone: data that lie on the device and data that are streamed give the same batches, and a resumed
run sees what the uninterrupted one sees.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Int

from mmjax.data.dataset import Source
from mmjax.types import Batch

Indices = Int[np.ndarray, "s k b"]


@functools.lru_cache(maxsize=64)
def epoch_order(seed: int, epoch: int, examples: int) -> Int[np.ndarray, " n"]:
    """The order in which an epoch visits the examples."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(examples)


def train_indices(
    seeds: Sequence[int], examples: int, batch_size: int, start: int, stop: int
) -> Indices:
    """The examples of the steps from `start` to `stop`, which lie in one epoch.

    The last incomplete batch of an epoch is dropped; the next epoch's order is another one.
    """
    epoch, first = divmod(start, examples // batch_size)
    cut = slice(first * batch_size, (first + stop - start) * batch_size)
    orders = [epoch_order(seed, epoch, examples)[cut] for seed in seeds]
    return np.stack(orders).reshape(len(seeds), stop - start, batch_size).astype(np.int32)


def eval_indices(
    examples: int, batch_size: int, batches: int
) -> list[tuple[Int[np.ndarray, "k b"], Bool[np.ndarray, "k b"]]]:
    """All examples once, in chunks of at most `batches` batches, the last one filled up.

    Returns:
      (indices, valid) a chunk; all chunks have the same shape.
    """
    count = -(-examples // batch_size)
    count = -(-count // batches) * batches if count > batches else count
    positions = np.arange(count * batch_size).reshape(-1, min(count, batches), batch_size)
    valid = positions < examples
    return list(zip(np.where(valid, positions, 0).astype(np.int32), valid, strict=True))


@runtime_checkable
class Chunks(Protocol):
    """The indices of every dispatch, by its number; a list will do."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Indices: ...


class Feed(NamedTuple):
    """A way to the devices.

    Attributes:
      sharded: whether every device gets data of its own.
      chunks: the indices of every dispatch [s, k, b] -> for each, the data and the indices
        [devices, s, k, b / devices] into them.
    """

    sharded: bool
    chunks: Callable[[Chunks], Iterator[tuple[Batch, Any]]]


def over(devices: Sequence[jax.Device], spec: PartitionSpec) -> NamedSharding:
    """How an array lies on the devices, whose one axis is called "data"."""
    return NamedSharding(Mesh(np.array(devices), ("data",)), spec)


def replicated(devices: Sequence[jax.Device]) -> NamedSharding:
    """A copy on every device."""
    return over(devices, PartitionSpec())


def on_device(data: Batch, devices: Sequence[jax.Device]) -> Feed:
    """The whole split lies on every device, and programs draw from it by index."""
    data = jax.device_put(data, replicated(devices))

    def chunks(plan: Chunks) -> Iterator[tuple[Batch, Any]]:
        for i in range(len(plan)):
            yield data, split_devices(plan[i], len(devices))

    return Feed(sharded=False, chunks=chunks)


def streamed(
    source: Source,
    devices: Sequence[jax.Device],
    prepare: Callable[[Batch], Batch] = lambda batch: batch,
    *,
    ahead: int = 2,
) -> Feed:
    """Examples are fetched by grain's threads while the devices compute, `ahead` chunks early.

    Args:
      source: where the examples come from.
      devices: where they go; each gets its own part only.
      prepare: applied on the host to every chunk (selection, validation).
      ahead: how many chunks are in memory beside the one in use.
    """
    sharded = over(devices, PartitionSpec("data"))

    def chunks(plan: Chunks) -> Iterator[tuple[Batch, Any]]:
        import grain

        dataset = grain.MapDataset.source(Fetched(plan, source, len(devices), prepare))
        options = grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)
        for data, indices in dataset.to_iter_dataset(options):
            yield jax.device_put(data, sharded), indices

    return Feed(sharded=True, chunks=chunks)


@dataclasses.dataclass(frozen=True)
class Fetched:
    """The chunks of a plan with their examples, by number: what grain calls a data source."""

    plan: Chunks
    source: Source
    devices: int
    prepare: Callable[[Batch], Batch]

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, number: int) -> tuple[Batch, Any]:
        wanted = split_devices(self.plan[number], self.devices)
        batch = self.prepare(self.source.take(wanted.reshape(-1)))
        data = jax.tree.map(lambda x: x.reshape(self.devices, -1, *x.shape[1:]), batch)
        local = np.arange(wanted[0].size, dtype=np.int32).reshape(1, *wanted.shape[1:])
        return data, np.repeat(local, self.devices, axis=0)


def split_devices(indices: Any, devices: int) -> Any:
    """[seeds, steps, batch] -> [devices, seeds, steps, batch / devices]."""
    s, k, b = indices.shape
    return indices.reshape(s, k, devices, b // devices).transpose(2, 0, 1, 3)
