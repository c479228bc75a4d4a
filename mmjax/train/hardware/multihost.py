"""Distributed runs: conversion between arrays of one process and arrays of all processes.

If the arrays of a state are the same on every device, `pmap` returns arrays on the devices of one
process; Orbax saves arrays that are on the devices of all processes. Arrays that are split over
devices are arrays of all processes from the start.
"""

import itertools
import logging
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmjax.config.errors import ConfigError

_HOUR_MS = 3_600_000
_BARRIERS = itertools.count()  # each barrier of a process needs a name of its own


def join_processes(
    coordinator: str | None = None, process_id: int | None = None, num_processes: int | None = None
) -> None:
    """Joins the processes of a distributed run; call it before JAX opens its devices.

    If one process gets SIGTERM, all of them save a checkpoint of the same step and end. If one
    dies, the others end too, and `--resume` continues from the last checkpoint.

    Args:
      coordinator: HOST:PORT of the first process; None finds the processes of a SLURM step, an
        Open MPI job or a TPU pod by the environment.
      process_id: the number of this process, from 0.
      num_processes: the number of processes.

    Raises:
      ConfigError: no environment of several processes is found, or the processes do not meet.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", True)
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        where = f"at {coordinator}" if coordinator else "by the environment"
        raise ConfigError(
            f"the processes of the run do not meet {where}: {str(error).splitlines()[0]} Give each "
            "--coordinator HOST:PORT --process-id I --num-processes N."
        ) from error
    if jax.process_index():
        logging.getLogger("mmjax").setLevel(logging.ERROR)  # the first process warns for all


def wait_for_processes() -> None:
    """Waits, for at most an hour, until every process of a distributed run has come to this call.

    Compilation may take one process longer than another, and on CPU the first sum over devices
    fails if a process comes more than 30 seconds late.
    """
    if jax.process_count() == 1:
        return  # the first step need not wait for Orbax's import
    from orbax.checkpoint.multihost import get_barrier_sync_fn

    get_barrier_sync_fn()(key=f"mmjax/{next(_BARRIERS)}", timeout_ms=_HOUR_MS)


def make_global_sharding() -> NamedSharding:
    """Returns the sharding with a copy on every device of every process."""
    return NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec())


def place_on_all_processes(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Returns a shape with its copies on the devices of all processes, if there are several.

    One that is split over the processes stays as it is.
    """
    is_copied = jax.process_count() > 1 and x.sharding.is_fully_addressable
    return x.update(sharding=make_global_sharding()) if is_copied else x


def wait_for_all_processes(point: str) -> None:
    """Waits until every process of a distributed run has reached the named point of the program."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(point)


def fetch_array(x: Any) -> np.ndarray:
    """Copies an array to the host; one that is split over processes is gathered from all of them.

    Every process must call it. Random keys become integers.
    """
    x = jax.random.key_data(x) if is_key_array(x) else x
    if isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated:
        from jax.experimental import multihost_utils

        x = multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)


def fetch_arrays(tree: Any) -> Any:
    """Copies a tree of arrays to the host; see `fetch_array`."""
    return jax.tree.map(fetch_array, tree)


def to_global_shards(tree: Any, sharding: NamedSharding) -> Any:
    """Joins arrays on the devices of each process into arrays on those of all processes.

    Args:
      tree: arrays with one row per device of this process, or of which each of them has a copy;
        NumPy arrays are put on them.
      sharding: of the joined arrays, over all devices.
    """

    def convert(x: Any) -> Any:
        if not isinstance(x, jax.Array):
            return jax.make_array_from_process_local_data(sharding, x)
        rows = x.shape[:1] if sharding.is_fully_replicated else (sharding.num_devices,)
        own = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays((*rows, *x.shape[1:]), sharding, own)

    return jax.tree.map(convert, tree)


def to_global_arrays(tree: Any) -> Any:
    """Joins each process's copy of the same arrays into arrays of all processes."""

    def convert(x: Any) -> Any:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return x
        if is_key_array(x):
            return _wrap_key_data(convert(jax.random.key_data(x)), x)
        return jax.make_array_from_process_local_data(make_global_sharding(), np.asarray(x))

    return jax.tree.map(convert, tree) if jax.process_count() > 1 else tree


def to_local_arrays(tree: Any, like: Any) -> Any:
    """Turns arrays of all processes into arrays of this one, placed like those of `like`."""

    def convert(x: Any, target: Any) -> Any:
        if not target.sharding.is_fully_addressable:
            return x
        local = (
            _wrap_key_data(np.asarray(jax.random.key_data(x)), x)
            if is_key_array(x)
            else np.asarray(x)
        )
        return jax.device_put(local, target.sharding)

    return jax.tree.map(convert, tree, like) if jax.process_count() > 1 else tree


def _wrap_key_data(data: Any, key: Any) -> Any:
    """Wraps raw key data as keys of the same kind."""
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))


def is_key_array(x: Any) -> bool:
    """Returns whether an array holds random keys."""
    return bool(jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key))
