"""Times two training steps in turns, so that a busy machine slows both."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

RunStep = Callable[[], None]


class PairTimes(NamedTuple):
    """Medians over rounds: seconds of both steps, and the ratio second / first of neighbors."""

    ratio: float
    first: float
    second: float


def make_timed_step(model: Any, batch: Any, balancer: Any) -> RunStep:
    """Returns a function that runs one training step with Adam and waits for it.

    Args:
      model: the model.
      batch: NumPy arrays.
      balancer: the balancer.
    """
    import jax
    import jax.numpy as jnp
    import optax

    from mmjax.train.steps.state import init_state
    from mmjax.train.steps.train_step import make_train_step

    batch = jax.tree.map(jnp.asarray, batch)
    optimizer = optax.adam(1e-3)
    state = init_state(model, optimizer, balancer, batch, jax.random.key(0))
    step = jax.jit(make_train_step(model, optimizer, balancer))

    def run() -> None:
        jax.block_until_ready(step(state, batch))

    return run


def time_in_pairs(first: RunStep, second: RunStep, rounds: int) -> PairTimes:
    """Runs two steps alternately; each must have been compiled."""
    pairs = [(time_call(first), time_call(second)) for _ in range(rounds)]
    return PairTimes(
        statistics.median(b / a for a, b in pairs),
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
    )


def time_call(run: Callable[[], Any]) -> float:
    """Measures the seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
