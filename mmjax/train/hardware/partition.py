"""Programs that the compiler partitions over the devices of a group."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from mmjax.kernels.replica_axes import REPLICA_GROUP_AXIS
from mmjax.train.hardware.device_groups import DEVICE_AXIS, GROUP_AXIS
from mmjax.train.hardware.split_arrays import choose_split, split_examples
from mmjax.types import Batch


def take_from_devices(data: Batch, indices: Int[Array, "d b"], *, sharded: bool) -> Batch:
    """Returns the examples [d b, ...] of all devices, each of which holds its own.

    Args:
      data: the data; with `sharded`, one part per device: [d, ...].
      indices: for every device, indices into the data or its part of them.
      sharded: whether every device has its own data.
    """

    def take(x: Array) -> Array:
        rows = jax.vmap(lambda part, i: part[i])(x, indices) if sharded else x[indices]
        return rows.reshape(-1, *rows.shape[2:])

    return split_examples(jax.tree.map(take, data))


def partition_over_devices(
    function: Callable[..., Any], mesh: Mesh, indexed: int, *, donate: bool, constants: int
) -> Any:
    """Makes the program in which the compiler partitions a function over the devices of a group.

    Args:
      function: (states, data, *indices [replicas, steps, devices, ...], *constants), for all
        replicas of a group.
      mesh: [groups, devices of a group].
      indexed: number of arguments that follow the data, with the axes [devices, replicas, steps,
        batch / devices].
      donate: whether the function returns (states, metrics), and the memory of the states may be
        reused.
      constants: number of arguments that follow those.
    """

    def place(x: Array, spec: P) -> Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

    def place_whole(x: Array) -> Array:
        return place(x, P(GROUP_AXIS))

    def place_split(x: Array) -> Array:
        return place(x, P(GROUP_AXIS, *choose_split(x.shape[1:], mesh.shape[DEVICE_AXIS])))

    in_axes = (0, None, *[0] * indexed, *[None] * constants)
    on_each_group = _map_over_groups(function, mesh.shape[GROUP_AXIS], in_axes)

    def program(states: Any, data: Batch, *rest: Any) -> Any:
        indices = [x.transpose(1, 2, 0, 3) for x in rest[:indexed]]
        indices = [place(x, P(GROUP_AXIS, None, DEVICE_AXIS)) for x in indices]
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            result = on_each_group(states, data, *indices, *rest[indexed:])
        # Results are placed like the arguments, so that the next dispatch need not move them.
        if not donate:
            return jax.tree.map(place_whole, result)
        return jax.tree.map(place_split, result[0]), jax.tree.map(place_whole, result[1])

    return jax.jit(program, donate_argnums=(0,) if donate else ())


def _map_over_groups(
    function: Callable[..., Any], groups: int, in_axes: tuple[int | None, ...]
) -> Callable[..., Any]:
    """Maps a function of the replicas of a group over groups of devices.

    The compiler partitions the axis of groups, too. If `jax.shard_map` made it manual, JAX would
    constrain the sharding of every value, also inside the function of a scatter. XLA then does not
    see that it is a sum, and gathers the gradients of all examples to sum those of embeddings.

    Args:
      function: for all replicas of a group.
      groups: number of groups.
      in_axes: 0 for arguments that have an axis of replicas, None for the others.
    """
    if groups == 1:
        return function
    mapped = jax.vmap(
        function,
        in_axes=in_axes,
        axis_name=REPLICA_GROUP_AXIS,
        spmd_axis_name=GROUP_AXIS,
    )

    def call(*args: Any) -> Any:
        arguments = [
            x if axis is None else jax.tree.map(lambda x: x.reshape(groups, -1, *x.shape[1:]), x)
            for x, axis in zip(args, in_axes, strict=True)
        ]
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), mapped(*arguments))

    return call
