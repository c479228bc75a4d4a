"""Programs that the compiler partitions over the devices of a group."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

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

    on_each_group = function
    if mesh.shape[GROUP_AXIS] > 1:
        # Groups do not communicate, so their axis is manual; the other is left to the compiler.
        # With a manual axis, XLA gathers the gradients of all examples to sum those of embeddings.
        on_each_group = jax.shard_map(
            function,
            in_specs=(P(GROUP_AXIS), P(), *[P(GROUP_AXIS)] * indexed, *[P()] * constants),
            out_specs=P(GROUP_AXIS),
            axis_names={GROUP_AXIS},
            check_vma=False,
        )

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
