"""Timing in turns, so that a busy machine slows all sides alike."""

import statistics
import time
from collections.abc import Mapping, Sequence

from versus.case import BATCHES, Run

LEAST = 0.05  # seconds of one sample, so that the clock and the dispatch of one step do not count

Seconds = dict[str, list[float]]


def alternate(runs: Mapping[str, Run], rounds: int, least: float = LEAST) -> Seconds:
    """Seconds a step of every side in every round; the sides take turns within a round.

    Args:
      runs: {side: what makes a number of steps}. It is asked for multiples of `BATCHES` steps.
      rounds: how many samples each side gives.
      least: seconds that a sample lasts at least, as far as the warm-up can tell.
    """
    steps = {side: enough_steps(run, least) for side, run in runs.items()}
    seconds: Seconds = {side: [] for side in runs}
    for _ in range(rounds):
        for side, run in runs.items():
            seconds[side].append(timed(run, steps[side]) / steps[side])
    return seconds


def enough_steps(run: Run, least: float) -> int:
    """Warms up, and finds how many steps last long enough."""
    timed(run, BATCHES)
    steps = BATCHES
    while (taken := timed(run, steps)) < least:
        steps *= max(2, min(16, int(1.2 * least / max(taken, 1e-6))))
    return steps


def timed(run: Run, steps: int) -> float:
    """Seconds of so many steps."""
    start = time.perf_counter()
    run(steps)
    return time.perf_counter() - start


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """The median over the rounds of one side's time over the other's in the same round."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def median_ms(seconds: Sequence[float]) -> float:
    """The median in milliseconds."""
    return 1e3 * statistics.median(seconds)
