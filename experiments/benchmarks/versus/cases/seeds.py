"""Case 7: five seeds as one program against one seed, with the program that `fit` runs."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.data.pipeline import make_replicated_sharding, split_over_devices
from mmjax.train.hardware.compilation import RUN_ONCE_OPTIONS, compile_with_options
from mmjax.train.hardware.device_groups import make_state_sharding
from mmjax.train.hardware.parallel import DEVICE_AXIS, make_train_program
from versus.case import BATCH_COUNT, MmjaxSide, RunSteps
from versus.cases import lenet, polyglot, textbook
from versus.compiled import choose_devices, compile_for_training

SEEDS = 5


def make_seeds_run(ours: MmjaxSide, seeds: int) -> RunSteps:
    """Compiles dispatches of many steps for several seeds, each with its own order of examples."""
    data = jax.tree.map(lambda *x: np.concatenate(x), *ours.batches)
    devices = choose_devices(data.size // BATCH_COUNT)
    order = [np.random.default_rng(seed).permutation(data.size) for seed in range(seeds)]
    indices = np.stack(order).reshape(seeds, BATCH_COUNT, -1).astype(np.int32)
    program = make_train_program(ours.step(DEVICE_AXIS), replicas=seeds, devices=devices)
    keys = jnp.stack([jax.random.key(seed) for seed in range(seeds)])
    start = compile_with_options(jax.jit(jax.vmap(ours.init)).lower(keys), RUN_ONCE_OPTIONS)
    sharding = make_state_sharding(replicas=seeds, devices=devices, sharded=False)
    state: Any = jax.device_put(start(keys), sharding)
    data = jax.device_put(data, make_replicated_sharding(devices))
    indices = split_over_devices(indices, len(devices))
    compiled = compile_for_training(program.lower(state, data, indices))

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps // BATCH_COUNT):
            state, _ = compiled(state, data, indices)
        jax.block_until_ready(state)

    return run


def list_cases() -> Iterator[tuple[str, Callable[[], MmjaxSide]]]:
    """Yields names, and functions that make mmjax's side of one seed."""
    yield "textbook, batch 128", lambda: textbook.make_mmjax_side(128)
    yield "LeNet, 2 tasks, equal", lambda: lenet.make_mmjax_side("equal", 2)
    yield "polyglot_digits, batch 64", polyglot.make_mmjax_side
