"""One step over many steps, seeds and devices: the only file that knows of scan, vmap and pmap.

Every program takes a leading axis of seeds, and examples by index: `indices` has the shape
[devices, seeds, steps, batch / devices] and points into `data`, a Batch that is either one for all
devices or, with `sharded=True`, one a device with a leading device axis.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jaxtyping import Array, Int

from mmjax.train.step import EvalStep, Metrics, Statistics, TrainStep
from mmjax.types import Batch, Params, TrainState

AXIS = "data"

TrainProgram = Callable[[TrainState, Batch, Int[Array, "p s k b"]], tuple[TrainState, Metrics]]
EvalProgram = Callable[[Params, Batch, Any, Any], Statistics]


def take(data: Batch, indices: Int[Array, " b"]) -> Batch:
    """The examples at `indices`."""
    return jax.tree.map(lambda x: x[indices], data)


def over_seeds(function: Callable[..., Any], seeds: int, in_axes: tuple[int | None, ...]) -> Any:
    """Maps over the leading axis of seeds; one seed is computed without the axis: it is faster."""
    if seeds > 1:
        return jax.vmap(function, in_axes=in_axes)

    def single(*args: Any) -> Any:
        squeezed = (
            a if axis is None else jax.tree.map(lambda x: x[0], a)
            for a, axis in zip(args, in_axes, strict=True)
        )
        return jax.tree.map(lambda x: x[None], function(*squeezed))

    return single


def over_devices(
    function: Callable[..., Any], devices: Sequence[jax.Device], in_axes: Any, donate: bool
) -> Any:
    """Maps over devices by `pmap`; the outputs are the same on all and come without their axis."""
    return jax.pmap(
        function,
        axis_name=AXIS,
        in_axes=in_axes,
        out_axes=None,
        devices=devices,
        donate_argnums=(0,) if donate else (),
    )


def train_program(
    step: TrainStep, *, seeds: int, devices: Sequence[jax.Device], sharded: bool = False
) -> TrainProgram:
    """Many training steps of many seeds on many devices in one dispatch; the state is donated.

    Returns:
      (states, data, indices) -> (states, metrics), where the metrics have the axes [seeds, steps].
    """

    def many_steps(state: TrainState, data: Batch, indices: Array) -> tuple[TrainState, Metrics]:
        return jax.lax.scan(lambda s, i: step(s, take(data, i)), state, indices)

    mapped = over_seeds(many_steps, seeds, (0, None, 0))
    return over_devices(mapped, devices, (None, 0 if sharded else None, 0), donate=True)


def eval_program(
    step: EvalStep, *, seeds: int, devices: Sequence[jax.Device], sharded: bool = False
) -> EvalProgram:
    """The statistics of many batches, for many seeds, in one dispatch.

    Returns:
      (params, data, indices, valid) -> statistics with a leading axis of seeds. Where `valid` is
      False the index only fills up the batch, and its example counts for nothing.
    """

    def many_batches(params: Params, data: Batch, indices: Array, valid: Array) -> Statistics:
        def one(index: Array, real: Array) -> Statistics:
            batch = take(data, index)
            labeled = {t: mask & real for t, mask in batch.labeled.items()}
            return step(params, batch._replace(labeled=labeled))

        sums = jax.lax.map(lambda pair: one(*pair), (indices, valid))
        return jax.tree.map(lambda x: x.sum(0), sums)

    mapped = over_seeds(many_batches, seeds, (0, None, 0, 0))
    return over_devices(mapped, devices, (None, 0 if sharded else None, 0, 0), donate=False)


def check_divisible(name: str, size: int, devices: int) -> None:
    """Refuses a batch that the devices cannot share evenly."""
    if size % devices:
        below = size - size % devices
        raise ValueError(
            f"{name}={size} is not divisible by the {devices} devices; choose "
            f"{below or devices} or {below + devices}, or train on other devices."
        )
