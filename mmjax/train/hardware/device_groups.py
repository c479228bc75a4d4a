"""Groups of devices that train different replicas, and where arrays lie on them."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.data.pipeline import make_replicated_sharding

DEVICE_AXIS = "data"
GROUP_AXIS = "seeds"


def count_groups(replicas: int, devices: Sequence[jax.Device], *, sharded: bool) -> int:
    """Returns the number of groups of devices; 1 if all devices share every batch."""
    return 1 if sharded or jax.process_count() > 1 else math.gcd(replicas, len(devices))


def make_constant_sharding(
    replicas: int, devices: Sequence[jax.Device], *, sharded: bool
) -> NamedSharding:
    """Returns the sharding of arrays that all replicas and this process's devices share."""
    return _shard_over_groups(count_groups(replicas, devices, sharded=sharded), devices, P())


def make_state_sharding(
    replicas: int, devices: Sequence[jax.Device], *, sharded: bool
) -> NamedSharding:
    """Returns the sharding of arrays with a leading axis of replicas on this process's devices."""
    count = count_groups(replicas, devices, sharded=sharded)
    return _shard_over_groups(count, devices, P(GROUP_AXIS))


def _shard_over_groups(count: int, devices: Sequence[jax.Device], spec: P) -> NamedSharding:
    """Returns a sharding over groups of devices; a single group has whole arrays everywhere."""
    if count == 1:
        return make_replicated_sharding(devices)
    return NamedSharding(make_group_mesh(devices, count), spec)


def make_group_mesh(devices: Sequence[jax.Device], count: int) -> Mesh:
    """Returns the devices in groups: [groups, devices of a group]."""
    grid = np.array(devices).reshape(count, -1)
    return Mesh(grid, (GROUP_AXIS, DEVICE_AXIS), axis_types=(AxisType.Auto,) * 2)


def check_divisible_by_devices(name: str, size: int, devices: int) -> None:
    """Refuses a batch that cannot be divided evenly among the devices.

    Raises:
      ValueError: naming the nearest sizes that can be.
    """
    if size % devices:
        below = size - size % devices
        raise ValueError(
            f"{name}={size} is not divisible by the {devices} devices; choose "
            f"{below or devices} or {below + devices}, or train on other devices."
        )
