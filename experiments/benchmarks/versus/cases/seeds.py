"""Case 7: five seeds as one program against one seed, by the program that `fit` runs."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.data.pipeline import replicated, split_devices
from mmjax.train.compilation import RUN_ONCE, keep_known_options
from mmjax.train.parallel import AXIS, placement, train_program
from versus.case import BATCHES, Ours, Run
from versus.cases import lenet, polyglot, textbook
from versus.compiled import options, places

SEEDS = 5


def several(ours: Ours, seeds: int) -> Run:
    """Dispatches of many steps for many seeds, each with an order of its own."""
    data = jax.tree.map(lambda *x: np.concatenate(x), *ours.batches)
    devices = places(data.size // BATCHES)
    order = [np.random.default_rng(seed).permutation(data.size) for seed in range(seeds)]
    indices = np.stack(order).reshape(seeds, BATCHES, -1).astype(np.int32)
    program = train_program(ours.step(AXIS), replicas=seeds, devices=devices)
    keys = jnp.stack([jax.random.key(seed) for seed in range(seeds)])
    start = jax.jit(jax.vmap(ours.init), compiler_options=keep_known_options(RUN_ONCE))
    placed = placement(replicas=seeds, devices=devices, sharded=False)
    state: Any = jax.device_put(start(keys), placed)
    data = jax.device_put(data, replicated(devices))
    indices = split_devices(indices, len(devices))
    compiled = program.lower(state, data, indices).compile(options())

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps // BATCHES):
            state, _ = compiled(state, data, indices)
        jax.block_until_ready(state)

    return run


def cases() -> Iterator[tuple[str, Callable[[], Ours]]]:
    """The names, and what makes mmjax's side of one seed."""
    yield "textbook, batch 128", lambda: textbook.ours(128)
    yield "LeNet, 2 tasks, equal", lambda: lenet.ours("equal", 2)
    yield "polyglot_digits, batch 64", polyglot.ours
