"""mmjax's side, compiled as `fit` does: one step per dispatch, or all batches in one scan."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

from mmjax.data.pipeline import make_replicated_sharding, make_sharding
from mmjax.inspection.flops import count_flops
from mmjax.train.hardware.compilation import (
    COMPILER_OPTIONS,
    RUN_ONCE_OPTIONS,
    compile_with_options,
)
from mmjax.train.hardware.devices import count_busy_cores
from mmjax.train.hardware.parallel import DEVICE_AXIS
from mmjax.types import Batch
from versus.case import MmjaxSide, RunSteps, stack_batches


class Cost(NamedTuple):
    """The cost of one training step.

    Attributes:
      flops: floating-point operations, counted by `mmjax.inspection.flops`; a loop of unknown
        length, as in solvers, counts once.
      bytes: bytes read and written according to XLA, which also counts the body of a loop once,
        and so one time step of a recurrent network.
      memory: bytes that the compiled step holds at most: arguments, results and temporaries.
    """

    flops: int
    bytes: float
    memory: int


def make_init(ours: MmjaxSide) -> Any:
    """Returns a function seed -> state, compiled without optimization, since it runs only twice."""
    lowered = jax.jit(ours.init).lower(jax.random.key(0))
    init = compile_with_options(lowered, RUN_ONCE_OPTIONS)
    return lambda seed: init(jax.random.key(seed))


def compile_for_training(lowered: jax.stages.Lowered) -> Any:
    """Compiles a training program with the options of this platform, as `fit` does."""
    return compile_with_options(lowered, COMPILER_OPTIONS.get(jax.default_backend(), {}))


def choose_devices(batch_size: int) -> list[jax.Device]:
    """Returns the devices over which `mmjax run` would split batches of a size; one if GPUs."""
    every = jax.devices()
    return every[: count_busy_cores(len(every), batch_size) if every[0].platform == "cpu" else 1]


def split_over_devices(batch: Batch, devices: Sequence[jax.Device], axis: int) -> Batch:
    """Splits the examples along an axis over the devices; the result has a leading device axis."""

    def split(x: np.ndarray) -> np.ndarray:
        shape = (*x.shape[:axis], len(devices), -1, *x.shape[axis + 1 :])
        return np.moveaxis(x.reshape(shape), axis, 0)

    return jax.device_put(jax.tree.map(split, batch), make_sharding(devices, PartitionSpec("data")))


def compile_over_devices(
    function: Callable[..., Any], state: Any, batch: Batch, devices: Sequence[jax.Device]
) -> Any:
    """Compiles (state, batch) -> (state, metrics) as `fit` does; the state is donated."""
    mapped = jax.pmap(
        function,
        axis_name=DEVICE_AXIS,
        in_axes=(None, 0),
        out_axes=None,
        devices=devices,
        donate_argnums=0,
    )
    return compile_for_training(mapped.lower(state, batch))


def compile_single_step(ours: MmjaxSide, make: Any) -> tuple[RunSteps, Cost]:
    """Compiles a step that takes one batch per dispatch, and measures its cost."""
    devices = choose_devices(ours.batches[0].size)
    batches = [split_over_devices(batch, devices, axis=0) for batch in ours.batches]
    state = jax.device_put(make(0), make_replicated_sharding(devices))
    step = compile_over_devices(ours.step(DEVICE_AXIS), state, batches[0], devices)
    cost = measure_cost(ours.step(), state, ours.batches[0], step, len(devices))

    def run(steps: int) -> None:
        nonlocal state
        for i in range(steps):
            state, _ = step(state, batches[i % len(batches)])
        jax.block_until_ready(state)

    return run, cost


def compile_scanned_steps(ours: MmjaxSide, make: Any) -> RunSteps:
    """Compiles the same step under `lax.scan`, all batches in one dispatch."""
    devices = choose_devices(ours.batches[0].size)
    step, size = ours.step(DEVICE_AXIS), len(ours.batches)
    data = split_over_devices(stack_batches(ours.batches), devices, axis=1)
    state = jax.device_put(make(0), make_replicated_sharding(devices))
    steps_of = compile_over_devices(lambda s, d: jax.lax.scan(step, s, d), state, data, devices)

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps // size):
            state, _ = steps_of(state, data)
        jax.block_until_ready(state)

    return run


def measure_cost(step: Any, state: Any, batch: Batch, program: Any, devices: int) -> Cost:
    """Counts the operations of a step on a whole batch, and bytes and memory over all devices."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        operations = count_flops(step, state, batch)
    analysis = program.memory_analysis()
    memory = (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )
    moved = program.cost_analysis().get("bytes accessed", 0.0)
    return Cost(operations, devices * moved, devices * memory)
