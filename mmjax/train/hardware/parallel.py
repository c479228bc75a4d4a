"""One step over many steps, replicas and devices: the only file that knows scan, vmap and pmap.

Every program takes a leading axis of replicas, and examples by index: `indices` has the shape
[devices, replicas, steps, batch / devices] and points into `data`, a Batch that is either the same
for all devices or, with `sharded=True`, one per device with a leading device axis. Constants, which
all steps, replicas and devices share, are optional last arguments.

If replicas can be divided among groups of devices, each group trains replicas of its own and does
not communicate with the others; within a group the devices share each batch. Either every device
runs the step on its part of the batch and the step sums over devices, or (`split=True`) the step is
that of one device and the compiler partitions it, with the arrays of the state split.
"""

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from mmjax.kernels.replica_axes import REPLICA_AXIS
from mmjax.train.hardware.device_groups import (
    DEVICE_AXIS,
    GROUP_AXIS,
    count_groups,
    make_group_mesh,
)
from mmjax.train.hardware.partition import partition_over_devices, take_from_devices
from mmjax.train.hardware.split_arrays import split_state
from mmjax.train.steps.eval_step import Statistics, merge_batches
from mmjax.train.steps.train_step import Metrics
from mmjax.types import Batch

SEQUENTIAL_PLATFORMS = {"cpu"}
"""Platforms that train replicas one after the other: a CPU gains nothing from many at once, and the
arrays of a single one stay in its cache."""

TrainProgram = Any  # a compiled (state, data, indices) -> (state, metrics), with `lower`
EvalProgram = Callable[..., Statistics]


def _take_examples(data: Batch, indices: Int[Array, " b"]) -> Batch:
    """Returns the examples at `indices`."""
    return jax.tree.map(lambda x: x[indices], data)


def map_over_replicas(
    function: Callable[..., Any], replicas: int, in_axes: tuple[int | None, ...], platform: str
) -> Any:
    """Maps over the leading axis of replicas: in parallel, or in turn on `SEQUENTIAL_PLATFORMS`.

    Args:
      function: one replica's.
      replicas: number of replicas.
      in_axes: 0 for arguments that have the axis, None for the others.
      platform: of the devices.
    """
    if replicas > 1 and platform not in SEQUENTIAL_PLATFORMS:
        return jax.vmap(function, in_axes=in_axes, axis_name=REPLICA_AXIS)

    def map_in_turn(*args: Any) -> Any:
        def call(mapped: list[Any]) -> Any:
            rest = iter(mapped)
            return function(
                *(a if axis is None else next(rest) for a, axis in zip(args, in_axes, strict=True))
            )

        return jax.lax.map(call, [a for a, axis in zip(args, in_axes, strict=True) if axis == 0])

    return map_in_turn


def count_concurrent_replicas(
    replicas: int, devices: Sequence[jax.Device], *, sharded: bool
) -> int:
    """Returns the number of replicas that a device computes concurrently."""
    in_turn = devices[0].platform in SEQUENTIAL_PLATFORMS
    return 1 if in_turn else replicas // count_groups(replicas, devices, sharded=sharded)


def _map_over_devices(
    function: Callable[..., Any],
    *,
    replicas: int,
    devices: Sequence[jax.Device],
    sharded: bool,
    indexed: int,
    donate: bool,
    constants: int,
    split: bool,
) -> Any:
    """Maps `function(state, data, *indices, *constants)` over replicas and devices.

    Args:
      function: one replica's, on one device.
      replicas: number of replicas.
      devices: the devices.
      sharded: whether `data` has a leading axis of devices.
      indexed: number of arguments that follow `data`.
      donate: whether the memory of the state may be reused; the function then returns (state,
        metrics).
      constants: number of arguments that follow those.
      split: whether the compiler partitions the function.
    """
    count = count_groups(replicas, devices, sharded=sharded)
    axes = (0, None, *[0] * indexed, *[None] * constants)
    mapped = map_over_replicas(function, replicas // count, axes, devices[0].platform)
    if split:
        mesh = make_group_mesh(devices, count)
        return partition_over_devices(mapped, mesh, indexed, donate=donate, constants=constants)
    if count == 1:
        # The step sums over devices itself, so every device returns the same state: one is kept.
        pmapped = jax.pmap(
            mapped,
            axis_name=DEVICE_AXIS,
            in_axes=(None, 0 if sharded else None, *[0] * indexed, *[None] * constants),
            out_axes=None,
            devices=devices,
            donate_argnums=(0,) if donate else (),
        )
        weakref.finalize(pmapped, _release_pmap_cache, mapped).atexit = False
        return pmapped
    on_each_group = jax.shard_map(
        mapped,
        mesh=make_group_mesh(devices, count),
        in_specs=(
            P(GROUP_AXIS),
            P(),
            *[P(GROUP_AXIS, None, DEVICE_AXIS)] * indexed,
            *[P()] * constants,
        ),
        out_specs=P(GROUP_AXIS),
        check_vma=False,  # the step reduces gradients itself, as under pmap
    )

    def program(state: Any, data: Batch, *rest: Any) -> Any:
        indices = map(_join_device_batches, rest[:indexed])
        return on_each_group(state, data, *indices, *rest[indexed:])

    return jax.jit(program, donate_argnums=(0,) if donate else ())


def _release_pmap_cache(function: Callable[..., Any]) -> None:
    """Frees the compiled programs that `pmap` cached for a function.

    `pmap` keys its cache weakly by the function, but the cached value holds the function, so that
    no entry ever leaves by itself: hundreds of memory maps per program, of which a process may have
    65,530. `jax.clear_caches` is the public way, but every small operation of the process would be
    compiled again after it, which takes about a second.
    """
    try:
        from jax._src.pmap import _cached_shard_map as cached

        cached.evict_function(function)
    except (ImportError, AttributeError):  # another version of JAX
        jax.clear_caches()


def _join_device_batches(indices: Array) -> Array:
    """Turns [devices, replicas, steps, batch / devices] into [replicas, steps, batch]."""
    _, replicas, steps, _ = indices.shape
    return indices.transpose(1, 2, 0, 3).reshape(replicas, steps, -1)


def make_train_program(
    step: Callable[..., tuple[Any, Metrics]],
    *,
    replicas: int,
    devices: Sequence[jax.Device],
    sharded: bool = False,
    constants: int = 0,
    split: bool = False,
) -> TrainProgram:
    """Makes the program that runs many steps of many replicas on many devices in one dispatch.

    Returns:
      (states, data, indices, *constants) -> (states, metrics). The metrics have the axes
      [replicas, steps]; the states are donated. With `split` the step is one without an axis of
      devices; see `mmjax.train.hardware.split_arrays`.
    """
    take = functools.partial(take_from_devices, sharded=sharded) if split else _take_examples

    def many_steps(state: Any, data: Batch, indices: Array, *constants: Any) -> tuple[Any, Metrics]:
        def take_step(state: Any, index: Array) -> tuple[Any, Metrics]:
            state, metrics = step(state, take(data, index), *constants)
            # Else the compiler may carry whole arrays from step to step.
            return split_state(state), metrics

        return jax.lax.scan(take_step, state, indices)

    return _map_over_devices(
        many_steps,
        replicas=replicas,
        devices=devices,
        sharded=sharded,
        indexed=1,
        donate=True,
        constants=constants,
        split=split,
    )


def make_eval_program(
    step: Callable[..., Statistics],
    *,
    replicas: int,
    devices: Sequence[jax.Device],
    sharded: bool = False,
    constants: int = 0,
    split: bool = False,
) -> EvalProgram:
    """Makes the program that sums the statistics of many batches and replicas in one dispatch.

    Returns:
      (variables, data, indices, valid, *constants) -> statistics with a leading axis of replicas.
      An index whose `valid` is False only fills up the batch, and its example does not count.
    """
    take = functools.partial(take_from_devices, sharded=sharded) if split else _take_examples

    def many_batches(
        variables: Any, data: Batch, indices: Array, valid: Array, *constants: Any
    ) -> Statistics:
        def evaluate_batch(index: Array, is_valid: Array) -> Statistics:
            batch, is_valid = take(data, index), is_valid.reshape(-1)
            labeled = {t: mask & is_valid for t, mask in batch.labeled.items()}
            return step(variables, batch._replace(labeled=labeled), *constants)

        # One batch after the other: only one of them has activations at a time.
        sums = jax.lax.map(lambda pair: evaluate_batch(*pair), (indices, valid))
        return merge_batches(sums)

    return _map_over_devices(
        many_batches,
        replicas=replicas,
        devices=devices,
        sharded=sharded,
        indexed=2,
        donate=False,
        constants=constants,
        split=split,
    )
