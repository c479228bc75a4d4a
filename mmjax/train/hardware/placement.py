"""Where the arrays of an experiment's programs lie: whole on every device, or split (FSDP)."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.train.hardware.device_groups import (
    DEVICE_AXIS,
    GROUP_AXIS,
    count_groups,
    make_constant_sharding,
    make_group_mesh,
    make_state_sharding,
)
from mmjax.train.hardware.multihost import to_global_shards
from mmjax.train.hardware.split_arrays import MIN_SPLIT_SIZE, choose_split
from mmjax.types import Batch


class Placement(NamedTuple):
    """Where the arrays of programs lie.

    Attributes:
      states: sharding of arrays with a leading axis of replicas, before they are split.
      constants: sharding of arrays that all replicas share, before they are split.
      data: sharding of the data of all processes.
      partitions: number of devices over which large arrays are split; 1 if they are whole.
    """

    states: NamedSharding
    constants: NamedSharding
    data: NamedSharding
    partitions: int

    @property
    def is_split(self) -> bool:
        """Whether large arrays are split."""
        return self.partitions > 1

    @property
    def takes_all_devices(self) -> bool:
        """Whether a program takes arrays of all devices, and not of this process's only."""
        return self.is_split or jax.process_count() == 1

    def join_processes(self, data: Batch, *indices: Any) -> tuple[Any, ...]:
        """Joins the data and the indices of several processes, if a program takes them so."""
        if jax.process_count() == 1 or not self.is_split:
            return data, *indices
        by_device = NamedSharding(self.states.mesh, P(DEVICE_AXIS))
        return to_global_shards(data, self.data), *to_global_shards(indices, by_device)

    def of_states(self, tree: Any) -> Any:
        """Returns the shardings of a tree of arrays, or shapes, that have an axis of replicas."""
        mesh, spec = self.states.mesh, self.states.spec
        return jax.tree.map(
            lambda x: NamedSharding(mesh, P(*spec, *choose_split(x.shape[1:], self.partitions))),
            tree,
        )

    def of_constants(self, tree: Any) -> Any:
        """Returns the shardings of a tree of arrays, or shapes, that all replicas share."""
        mesh = self.constants.mesh
        return jax.tree.map(
            lambda x: NamedSharding(mesh, choose_split(x.shape, self.partitions)), tree
        )

    def warn_if_nothing_is_split(self, params: Any) -> None:
        """Warns if every parameter is too small or has no axis that the devices divide evenly."""
        shapes = [x.shape for x in jax.tree.leaves(params)]
        if self.is_split and not any(choose_split(shape, self.partitions) for shape in shapes):
            logging.getLogger("mmjax").warning(
                "sharding='fsdp' splits nothing: no parameter has %d values or more and an axis "
                "that %d devices divide evenly, so every device keeps a copy of the model. Choose "
                "other widths or another number of devices, or sharding='replicated'.",
                MIN_SPLIT_SIZE,
                self.partitions,
            )


def make_placement(
    replicas: int, devices: Sequence[jax.Device], *, sharded: bool, split: bool
) -> Placement:
    """Makes the placement of the arrays of a number of replicas on devices.

    Args:
      replicas: number of replicas.
      devices: the devices, of all processes.
      sharded: whether every device gets its own data.
      split: whether large arrays are split over the devices that train a replica.
    """
    groups = count_groups(replicas, devices, sharded=sharded)
    # A group of one device has nothing to split over.
    if not split or len(devices) == groups:
        layout: Any = {"replicas": replicas, "devices": devices, "sharded": sharded}
        constants = make_constant_sharding(**layout)
        return Placement(make_state_sharding(**layout), constants, constants, 1)
    mesh = make_group_mesh(devices, groups)
    whole = NamedSharding(mesh, P())
    data = NamedSharding(mesh, P(DEVICE_AXIS)) if sharded else whole
    return Placement(NamedSharding(mesh, P(GROUP_AXIS)), whole, data, len(devices) // groups)
