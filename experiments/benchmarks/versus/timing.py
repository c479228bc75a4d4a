"""Timing in turns, so that a busy machine slows all sides equally."""

import statistics
import time
from collections.abc import Mapping, Sequence

from versus.case import BATCH_COUNT, RunSteps

MIN_SAMPLE_SECONDS = 0.05  # so that the resolution of the clock and the dispatch do not matter

Seconds = dict[str, list[float]]


def time_in_turns(
    runs: Mapping[str, RunSteps],
    rounds: int,
    least: float = MIN_SAMPLE_SECONDS,
    unit: int = BATCH_COUNT,
) -> Seconds:
    """Measures seconds per step of every side in every round; the sides take turns in a round.

    Args:
      runs: {side: function that runs a number of steps}. It gets multiples of `unit` steps.
      rounds: number of samples per side.
      least: least seconds of a sample, as estimated by the warm-up.
      unit: number of different batches.
    """
    steps = {side: choose_step_count(run, least, unit) for side, run in runs.items()}
    seconds: Seconds = {side: [] for side in runs}
    for _ in range(rounds):
        for side, run in runs.items():
            seconds[side].append(time_steps(run, steps[side]) / steps[side])
    return seconds


def choose_step_count(run: RunSteps, least: float, unit: int) -> int:
    """Warms up, and returns how many steps, a multiple of `unit`, take long enough."""
    time_steps(run, unit)
    steps = unit
    while (elapsed := time_steps(run, steps)) < least:
        steps *= max(2, min(16, int(1.2 * least / max(elapsed, 1e-6))))
    return steps


def time_steps(run: RunSteps, steps: int) -> float:
    """Returns the seconds that so many steps take."""
    start = time.perf_counter()
    run(steps)
    return time.perf_counter() - start


def compute_median_ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Returns the median over the rounds of one side's time over the other's in the same round."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def compute_median_ms(seconds: Sequence[float]) -> float:
    """Returns the median in milliseconds."""
    return 1e3 * statistics.median(seconds)
