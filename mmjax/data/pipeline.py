"""Which examples make which batch, and how they reach the devices.

The order is a pure function of (seed, epoch), so that any step's batch is known from its number
alone: data that lie on the device and data that are streamed give the same batches, and a resumed
run sees what the uninterrupted one sees.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Int

from mmjax.data.dataset import Arrays, Source
from mmjax.data.workers import (
    SentChunks,
    Worker,
    check_workers_alive,
    leave_signals_to_main_thread,
    modules_imported_by_path,
)
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


@dataclasses.dataclass(frozen=True)
class Dispatches:
    """The chunks of a training run: all that worker processes need to know of it.

    Attributes:
      seeds: the run's seeds, each with an order of its own.
      examples: size of the split.
      batch_size: examples a step.
      ranges: (start, stop) of every dispatch's steps, which lie in one epoch.
    """

    seeds: tuple[int, ...]
    examples: int
    batch_size: int
    ranges: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.ranges)

    def __getitem__(self, number: int) -> Indices:
        return train_indices(self.seeds, self.examples, self.batch_size, *self.ranges[number])


class Feed(NamedTuple):
    """A way to the devices.

    Attributes:
      sharded: whether every device gets data of its own.
      chunks: the indices of every dispatch [s, k, b] -> for each, the data and the indices
        [devices, s, k, b / devices] into them, for the devices of this process.
    """

    sharded: bool
    chunks: Callable[[Chunks], Iterator[tuple[Batch, Any]]]


class Share(NamedTuple):
    """Which part of every batch is one process's: the batch is dealt out to devices in order.

    Attributes:
      devices: how many devices there are, over all processes.
      mine: the positions among them of this process's own.
    """

    devices: int
    mine: tuple[int, ...]

    def of(self, indices: Any) -> Any:
        """[seeds, steps, batch] -> [own devices, seeds, steps, batch / devices]."""
        return split_devices(indices, self.devices)[list(self.mine)]


def share(devices: Sequence[jax.Device]) -> Share:
    """This process's share of the devices' batches."""
    own = jax.process_index()
    return Share(len(devices), tuple(i for i, d in enumerate(devices) if d.process_index == own))


def over(devices: Sequence[jax.Device], spec: PartitionSpec) -> NamedSharding:
    """How an array lies on those devices that are this process's; their one axis is "data"."""
    own = [devices[i] for i in share(devices).mine]
    return NamedSharding(Mesh(np.array(own), ("data",)), spec)


def replicated(devices: Sequence[jax.Device]) -> NamedSharding:
    """A copy on every device."""
    return over(devices, PartitionSpec())


def on_device(data: Batch, devices: Sequence[jax.Device]) -> Feed:
    """The whole split lies on every device, and programs draw from it by index."""
    if devices[0].platform == "cpu":
        data = jax.tree.map(aligned, data)
    data, mine = jax.device_put(data, replicated(devices)), share(devices)

    def chunks(plan: Chunks) -> Iterator[tuple[Batch, Any]]:
        for i in range(len(plan)):
            yield data, mine.of(plan[i])

    return Feed(sharded=False, chunks=chunks)


def aligned(x: np.ndarray) -> np.ndarray:
    """A copy at an address (a multiple of 64 bytes) where JAX's CPU devices can share it as it is.

    An array elsewhere would be copied for each of them.
    """
    memory = np.empty(x.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def streamed(
    source: Source,
    devices: Sequence[jax.Device],
    prepare: Callable[[Batch], Batch] = lambda batch: batch,
    *,
    ahead: int = 2,
    workers: int = 0,
) -> Feed:
    """Examples are fetched and put on the devices while these compute, by grain.

    Each process fetches the examples of its own devices only.

    Args:
      source: where the examples come from.
      devices: where they go; each gets its own part only.
      prepare: applied on the host to every chunk (selection, validation).
      ahead: how many chunks are fetched early; one more waits on the devices.
      workers: how many processes fetch, for sources that keep Python busy (decoding); 0 leaves it
        to threads of this one. A plan, a source and `prepare` must be such as can be pickled. They
        are started for every pass over a plan, which takes seconds. `Arrays` need none.

    Raises:
      ValueError: where the source cannot be sent to worker processes.
    """
    sharding, mine = over(devices, PartitionSpec("data")), share(devices)

    def place(chunk: tuple[Batch, Any]) -> tuple[Batch, Any]:
        return jax.device_put(chunk[0], sharding), chunk[1]

    def chunks(plan: Chunks) -> Iterator[tuple[Batch, Any]]:
        import grain

        fetched = fetch(Fetched(plan, source, mine, prepare), ahead, workers)
        placed = iter(
            grain.experimental.ThreadPrefetchIterDataset(fetched.map(place), prefetch_buffer_size=1)
        )
        close = placed.close
        with leave_signals_to_main_thread():
            placed.start_prefetch()
        try:
            yield from placed
        except RuntimeError as error:
            check_workers_alive(error, workers)
            raise
        except KeyboardInterrupt:
            # It waits for what is being read, which whoever saves a checkpoint now must not.
            close = threading.Thread(target=placed.close, daemon=True).start
            raise
        finally:
            close()

    return Feed(sharded=True, chunks=chunks)


@dataclasses.dataclass(frozen=True)
class Fetched:
    """The chunks of a plan with their examples, by number: what grain calls a data source."""

    plan: Chunks
    source: Source
    share: Share
    prepare: Callable[[Batch], Batch]

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, number: int) -> tuple[Batch, Any]:
        wanted = self.share.of(self.plan[number])
        batch = self.prepare(self.source.take(wanted.reshape(-1)))
        data = jax.tree.map(lambda x: x.reshape(len(wanted), -1, *x.shape[1:]), batch)
        local = np.arange(wanted[0].size, dtype=np.int32).reshape(1, *wanted.shape[1:])
        return data, np.repeat(local, len(wanted), axis=0)


def fetch(chunks: Fetched, ahead: int, workers: int) -> Any:
    """The chunks in their order as a grain dataset, read early by threads or by processes."""
    import grain
    from absl import flags

    if not workers or isinstance(chunks.source, Arrays):
        dataset = grain.MapDataset.source(chunks)
        return dataset.to_iter_dataset(grain.ReadOptions(ahead, ahead))
    check_picklable(chunks)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's processes read absl's flags, which few programs do
    dataset = grain.MapDataset.source(SentChunks(chunks))
    one_at_a_time = dataset.to_iter_dataset(grain.ReadOptions(1, 1))
    buffer = -(-ahead // workers)
    start = Worker(modules_imported_by_path())
    return one_at_a_time.mp_prefetch(grain.MultiprocessingOptions(workers, buffer), start)


def check_picklable(chunks: Fetched) -> None:
    """Refuses a source that cannot be sent to another process, before one is started."""
    import cloudpickle

    try:
        cloudpickle.dumps(chunks)
    except Exception as error:
        raise ValueError(
            f"The source {type(chunks.source).__name__} cannot be sent to worker processes "
            f"({error}). Give it a state that can be pickled (open files in `take`), or set "
            "workers=0 and let threads fetch."
        ) from error


def split_devices(indices: Any, devices: int) -> Any:
    """[seeds, steps, batch] -> [devices, seeds, steps, batch / devices]."""
    s, k, b = indices.shape
    return indices.reshape(s, k, devices, b // devices).transpose(2, 0, 1, 3)
