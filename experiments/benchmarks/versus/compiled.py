"""mmjax's side, compiled as `fit` does: one step a dispatch, or one for each batch in a scan."""

import warnings
from typing import Any, NamedTuple

import jax

from mmjax.flops import flops
from mmjax.train.programs import COMPILER_OPTIONS, RUN_ONCE
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
    made = jax.jit(ours.init, compiler_options=RUN_ONCE)
    return lambda seed: made(jax.random.key(seed))


def options() -> dict[str, Any] | None:
    """What the compiler is told on this platform."""
    return COMPILER_OPTIONS.get(jax.default_backend())


def single(ours: Ours, make: Any) -> tuple[Run, Cost]:
    """A jitted step, one batch a dispatch; the state is donated."""
    batches = [jax.device_put(batch) for batch in ours.batches]
    state, step = make(0), ours.step()
    compiled = jax.jit(step, donate_argnums=0).lower(state, batches[0]).compile(options())
    cost = cost_of(step, state, batches[0], compiled)

    def run(steps: int) -> None:
        nonlocal state
        for i in range(steps):
            state, _ = compiled(state, batches[i % len(batches)])
        jax.block_until_ready(state)

    return run, cost


def scanned(ours: Ours, make: Any) -> Run:
    """The same step under `lax.scan`, all batches in one dispatch; the state is donated."""
    data = jax.device_put(stacked(ours.batches))
    state, step, size = make(0), ours.step(), len(ours.batches)
    compiled = jax.jit(lambda s, d: jax.lax.scan(step, s, d), donate_argnums=0)
    compiled = compiled.lower(state, data).compile(options())

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps // size):
            state, _ = compiled(state, data)
        jax.block_until_ready(state)

    return run


def cost_of(step: Any, state: Any, batch: Any, compiled: Any) -> Cost:
    """Operations, bytes and memory of a compiled step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        operations = flops(step, state, batch)
    found = compiled.memory_analysis()
    memory = (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
    )
    return Cost(operations, compiled.cost_analysis().get("bytes accessed", 0.0), memory)
