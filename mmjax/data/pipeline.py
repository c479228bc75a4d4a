"""The way of batches to the devices: what a feed is, and the feed of data that lie on them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmjax.data.sampling.batch_order import IndexPlan
from mmjax.types import Batch


class Feed(NamedTuple):
    """A way to the devices.

    Attributes:
      sharded: whether every device gets its own data.
      chunks: maps the indices of every dispatch [s, k, b] to the data and the indices
        [devices, s, k, b / devices] into them, for the devices of this process.
    """

    sharded: bool
    chunks: Callable[[IndexPlan], Iterator[tuple[Batch, Any]]]


class ProcessShare(NamedTuple):
    """The part of every batch that one process reads: devices take equal parts in order.

    Attributes:
      devices: number of devices over all processes.
      positions: the positions of this process's devices among them.
    """

    devices: int
    positions: tuple[int, ...]

    def of(self, indices: Any) -> Any:
        """Maps [seeds, steps, batch] to [own devices, seeds, steps, batch / devices]."""
        return split_over_devices(indices, self.devices)[list(self.positions)]


def compute_process_share(devices: Sequence[jax.Device]) -> ProcessShare:
    """Returns this process's share of the devices' batches."""
    process = jax.process_index()
    positions = tuple(i for i, d in enumerate(devices) if d.process_index == process)
    return ProcessShare(len(devices), positions)


def make_sharding(devices: Sequence[jax.Device], spec: PartitionSpec) -> NamedSharding:
    """Makes a sharding over this process's devices; their one axis is "data"."""
    local_devices = [devices[i] for i in compute_process_share(devices).positions]
    return NamedSharding(Mesh(np.array(local_devices), ("data",)), spec)


def make_replicated_sharding(devices: Sequence[jax.Device]) -> NamedSharding:
    """Makes a sharding that puts a copy on every device of this process."""
    return make_sharding(devices, PartitionSpec())


def make_on_device_feed(data: Batch, devices: Sequence[jax.Device]) -> Feed:
    """Puts the whole split on every device; programs draw from it by index."""
    if devices[0].platform == "cpu":
        data = jax.tree.map(copy_aligned, data)
    data, process_share = (
        jax.device_put(data, make_replicated_sharding(devices)),
        compute_process_share(devices),
    )

    def chunks(plan: IndexPlan) -> Iterator[tuple[Batch, Any]]:
        for i in range(len(plan)):
            yield data, process_share.of(plan[i])

    return Feed(sharded=False, chunks=chunks)


def copy_aligned(x: np.ndarray) -> np.ndarray:
    """Copies an array to an address (a multiple of 64) that JAX's CPU devices can share.

    JAX would copy an array at any other address once per device.
    """
    memory = np.empty(x.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def split_over_devices(indices: Any, devices: int) -> Any:
    """Maps [seeds, steps, batch] to [devices, seeds, steps, batch / devices].

    Example:
      >>> split_over_devices(np.arange(4).reshape(1, 1, 4), devices=2).tolist()
      [[[[0, 1]]], [[[2, 3]]]]
    """
    s, k, b = indices.shape
    return indices.reshape(s, k, devices, b // devices).transpose(2, 0, 1, 3)
