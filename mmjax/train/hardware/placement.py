"""Where the arrays of an experiment's programs lie: whole on every device, or split (FSDP)."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.train.hardware.device_groups import (
    GROUP_AXIS,
    count_groups,
    make_constant_sharding,
    make_group_mesh,
    make_state_sharding,
)
from mmjax.train.hardware.split_arrays import MIN_SPLIT_SIZE, choose_split


class Placement(NamedTuple):
    """Where the arrays of programs lie.

    Attributes:
      states: sharding of arrays with a leading axis of replicas, before they are split.
      constants: sharding of arrays that all replicas share, before they are split.
      partitions: number of devices over which large arrays are split; 1 if they are whole.
    """

    states: NamedSharding
    constants: NamedSharding
    partitions: int

    @property
    def is_split(self) -> bool:
        """Whether large arrays are split."""
        return self.partitions > 1

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
    if not split or len(devices) == groups:
        layout: Any = {"replicas": replicas, "devices": devices, "sharded": sharded}
        return Placement(make_state_sharding(**layout), make_constant_sharding(**layout), 1)
    mesh = make_group_mesh(devices, groups)
    return Placement(
        NamedSharding(mesh, P(GROUP_AXIS)), NamedSharding(mesh, P()), len(devices) // groups
    )
