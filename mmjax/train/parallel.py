"""One step over many steps, seeds and devices: the only file that knows of scan, vmap and pmap.

Every program takes a leading axis of seeds, and examples by index: `indices` has the shape
[devices, seeds, steps, batch / devices] and points into `data`, a Batch that is either one for all
devices or, with `sharded=True`, one a device with a leading device axis.

Where seeds divide over devices, each group of devices trains seeds of its own and says nothing to
the others; within a group a batch is shared out.
"""

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from mmjax.data.pipeline import replicated
from mmjax.train.step import Metrics, Statistics
from mmjax.types import Batch

AXIS = "data"
SEEDS = "seeds"
IN_TURN = {"cpu"}
"""Where a program's seeds run one after the other: a CPU gains nothing from many at once, and what
one of them works on stays in its cache."""

TrainProgram = Any  # a compiled (state, data, indices) -> (state, metrics), with `lower`
EvalProgram = Callable[[Any, Batch, Any, Any], Statistics]


def take(data: Batch, indices: Int[Array, " b"]) -> Batch:
    """The examples at `indices`."""
    return jax.tree.map(lambda x: x[indices], data)


def over_seeds(
    function: Callable[..., Any], seeds: int, in_axes: tuple[int | None, ...], platform: str
) -> Any:
    """Maps over the leading axis of seeds: all at once, or in turn on platforms of `IN_TURN`.

    Args:
      function: one seed's.
      seeds: how many.
      in_axes: 0 for arguments that have the axis, None for the others.
      platform: of the devices.
    """
    if seeds > 1 and platform not in IN_TURN:
        return jax.vmap(function, in_axes=in_axes)

    def in_turn(*args: Any) -> Any:
        def one(own: list[Any]) -> Any:
            rest = iter(own)
            return function(
                *(a if axis is None else next(rest) for a, axis in zip(args, in_axes, strict=True))
            )

        return jax.lax.map(one, [a for a, axis in zip(args, in_axes, strict=True) if axis == 0])

    return in_turn


def groups(seeds: int, devices: Sequence[jax.Device], *, sharded: bool) -> int:
    """In how many groups the devices train seeds of their own; 1 where all share every batch."""
    return 1 if sharded or jax.process_count() > 1 else math.gcd(seeds, len(devices))


def at_once(seeds: int, devices: Sequence[jax.Device], *, sharded: bool) -> int:
    """How many seeds a device computes at a time."""
    in_turn = devices[0].platform in IN_TURN
    return 1 if in_turn else seeds // groups(seeds, devices, sharded=sharded)


def placement(seeds: int, devices: Sequence[jax.Device], *, sharded: bool) -> NamedSharding:
    """How an array with a leading axis of seeds lies on this process's devices."""
    apart = groups(seeds, devices, sharded=sharded)
    if apart == 1:
        return replicated(devices)
    return NamedSharding(mesh_of(devices, apart), P(SEEDS))


def mesh_of(devices: Sequence[jax.Device], apart: int) -> Mesh:
    """Devices in groups: [groups, devices of a group]."""
    grid = np.array(devices).reshape(apart, -1)
    return Mesh(grid, (SEEDS, AXIS), axis_types=(AxisType.Auto,) * 2)


def lifted(
    function: Callable[..., Any],
    *,
    seeds: int,
    devices: Sequence[jax.Device],
    sharded: bool,
    indexed: int,
    donate: bool,
) -> Any:
    """Maps `function(state, data, *indices)` over seeds and devices.

    Args:
      function: one seed's, on one device.
      seeds: how many.
      devices: which.
      sharded: whether `data` have a leading axis of devices.
      indexed: how many arguments follow `data`.
      donate: whether the state's memory may be used again.
    """
    apart = groups(seeds, devices, sharded=sharded)
    mapped = over_seeds(function, seeds // apart, (0, None, *[0] * indexed), devices[0].platform)
    if apart == 1:
        pmapped = jax.pmap(
            mapped,
            axis_name=AXIS,
            in_axes=(None, 0 if sharded else None, *[0] * indexed),
            out_axes=None,
            devices=devices,
            donate_argnums=(0,) if donate else (),
        )
        weakref.finalize(pmapped, release_pmapped, mapped).atexit = False
        return pmapped
    apart_each = jax.shard_map(
        mapped,
        mesh=mesh_of(devices, apart),
        in_specs=(P(SEEDS), P(), *[P(SEEDS, None, AXIS)] * indexed),
        out_specs=P(SEEDS),
        check_vma=False,  # gradients are reduced by hand, as under pmap
    )

    def program(state: Any, data: Batch, *indices: Any) -> Any:
        return apart_each(state, data, *map(join_devices, indices))

    return jax.jit(program, donate_argnums=(0,) if donate else ())


def release_pmapped(function: Callable[..., Any]) -> None:
    """Frees the compiled programs that `pmap` cached for a function.

    `pmap` keys its cache weakly by the function, but what it caches holds the function, so that no
    entry ever leaves by itself: hundreds of memory maps per program, of which a process may have
    65,530. `jax.clear_caches` is the public way, but every small operation of the process would be
    compiled again after it, which takes about a second.
    """
    try:
        from jax._src.pmap import _cached_shard_map as cached

        cached.evict_function(function)
    except (ImportError, AttributeError):  # another version of JAX
        jax.clear_caches()


def join_devices(indices: Array) -> Array:
    """[devices, seeds, steps, batch / devices] -> [seeds, steps, batch]."""
    _, seeds, steps, _ = indices.shape
    return indices.transpose(1, 2, 0, 3).reshape(seeds, steps, -1)


def train_program(
    step: Callable[[Any, Batch], tuple[Any, Metrics]],
    *,
    seeds: int,
    devices: Sequence[jax.Device],
    sharded: bool = False,
) -> TrainProgram:
    """Many training steps of many seeds on many devices in one dispatch; the state is donated.

    Returns:
      (states, data, indices) -> (states, metrics), where the metrics have the axes [seeds, steps].
    """

    def many_steps(state: Any, data: Batch, indices: Array) -> tuple[Any, Metrics]:
        return jax.lax.scan(lambda s, i: step(s, take(data, i)), state, indices)

    return lifted(many_steps, seeds=seeds, devices=devices, sharded=sharded, indexed=1, donate=True)


def eval_program(
    step: Callable[[Any, Batch], Statistics],
    *,
    seeds: int,
    devices: Sequence[jax.Device],
    sharded: bool = False,
) -> EvalProgram:
    """The statistics of many batches, for many seeds, in one dispatch.

    Returns:
      (params, data, indices, valid) -> statistics with a leading axis of seeds. Where `valid` is
      False the index only fills up the batch, and its example counts for nothing.
    """

    def many_batches(params: Any, data: Batch, indices: Array, valid: Array) -> Statistics:
        def one(index: Array, real: Array) -> Statistics:
            batch = take(data, index)
            labeled = {t: mask & real for t, mask in batch.labeled.items()}
            return step(params, batch._replace(labeled=labeled))

        sums = jax.lax.map(lambda pair: one(*pair), (indices, valid))
        return jax.tree.map(lambda x: x.sum(0), sums)

    return lifted(
        many_batches, seeds=seeds, devices=devices, sharded=sharded, indexed=2, donate=False
    )


def check_divisible(name: str, size: int, devices: int) -> None:
    """Refuses a batch that the devices cannot share evenly."""
    if size % devices:
        below = size - size % devices
        raise ValueError(
            f"{name}={size} is not divisible by the {devices} devices; choose "
            f"{below or devices} or {below + devices}, or train on other devices."
        )
