"""mmjax's side, compiled as `fit` does: one step a dispatch, or one for each batch in a scan."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

from mmjax.data.pipeline import over, replicated
from mmjax.flops import flops
from mmjax.train.compilation import COMPILER_OPTIONS, RUN_ONCE, keep_known_options
from mmjax.train.devices import busy
from mmjax.train.parallel import AXIS
from mmjax.types import Batch
from versus.case import Ours, Run, stacked


class Cost(NamedTuple):
    """What one training step takes.

    Attributes:
      flops: floating-point operations, counted by `mmjax.flops`; a loop of unknown length, as
        solvers have them, counts as if it ran once.
      bytes: what XLA says is read and written; XLA counts the body of a loop once too, and so one
        step of time of a recurrent network.
      memory: bytes that the compiled step holds at most: arguments, results and all between.
    """

    flops: int
    bytes: float
    memory: int


def initial(ours: Ours) -> Any:
    """A function of a seed that makes a state; not optimised, since it runs but twice."""
    made = jax.jit(ours.init, compiler_options=keep_known_options(RUN_ONCE))
    return lambda seed: made(jax.random.key(seed))


def options() -> dict[str, Any]:
    """What the compiler is told on this platform."""
    return keep_known_options(COMPILER_OPTIONS.get(jax.default_backend(), {}))


def places(batch_size: int) -> list[jax.Device]:
    """The devices that `mmjax run` would share batches of a size out to; of GPUs one."""
    every = jax.devices()
    return every[: busy(len(every), batch_size) if every[0].platform == "cpu" else 1]


def shared_out(batch: Batch, devices: Sequence[jax.Device], axis: int) -> Batch:
    """The batch, whose examples lie along an axis, with a leading axis of devices, on them."""

    def split(x: np.ndarray) -> np.ndarray:
        shape = (*x.shape[:axis], len(devices), -1, *x.shape[axis + 1 :])
        return np.moveaxis(x.reshape(shape), axis, 0)

    return jax.device_put(jax.tree.map(split, batch), over(devices, PartitionSpec("data")))


def compiled(
    function: Callable[..., Any], state: Any, batch: Batch, devices: Sequence[jax.Device]
) -> Any:
    """(state, batch) -> (state, metrics) on all devices, as `fit` maps it; the state is donated."""
    mapped = jax.pmap(
        function,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=None,
        devices=devices,
        donate_argnums=0,
    )
    return mapped.lower(state, batch).compile(options())


def single(ours: Ours, make: Any) -> tuple[Run, Cost]:
    """A step, one batch a dispatch."""
    devices = places(ours.batches[0].size)
    batches = [shared_out(batch, devices, axis=0) for batch in ours.batches]
    state = jax.device_put(make(0), replicated(devices))
    step = compiled(ours.step(AXIS), state, batches[0], devices)
    cost = cost_of(ours.step(), state, ours.batches[0], step, len(devices))

    def run(steps: int) -> None:
        nonlocal state
        for i in range(steps):
            state, _ = step(state, batches[i % len(batches)])
        jax.block_until_ready(state)

    return run, cost


def scanned(ours: Ours, make: Any) -> Run:
    """The same step under `lax.scan`, all batches in one dispatch."""
    devices = places(ours.batches[0].size)
    step, size = ours.step(AXIS), len(ours.batches)
    data = shared_out(stacked(ours.batches), devices, axis=1)
    state = jax.device_put(make(0), replicated(devices))
    steps_of = compiled(lambda s, d: jax.lax.scan(step, s, d), state, data, devices)

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps // size):
            state, _ = steps_of(state, data)
        jax.block_until_ready(state)

    return run


def cost_of(step: Any, state: Any, batch: Batch, program: Any, devices: int) -> Cost:
    """Operations of a step on a whole batch; bytes and memory of all devices together."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        operations = flops(step, state, batch)
    found = program.memory_analysis()
    memory = (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
    )
    moved = program.cost_analysis().get("bytes accessed", 0.0)
    return Cost(operations, devices * moved, devices * memory)
