"""Clocks of the training loop: how long it takes, and when a checkpoint is due."""

import datetime
import statistics
import time

import jax


class TrainingClock:
    """Measures a run: the first dispatch, which compiles, apart from the others."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.first = float("nan")
        self.steps = 0
        self.step_times: list[float] = []

    def start_dispatch(self) -> None:
        """Records that a dispatch begins."""
        self.started = self.seconds()

    def end_dispatch(self, steps: int) -> None:
        """Records that a dispatch of this number of steps has ended."""
        if self.first == self.first:  # not NaN: there was a first one
            self.steps += steps
            self.step_times.append((self.seconds() - self.started) / steps)
        else:
            self.first = self.seconds()
        self.last = self.seconds()

    def seconds(self) -> float:
        """Returns the seconds since the beginning."""
        return time.perf_counter() - self.begin

    def steps_per_second(self) -> float:
        """Returns the steps per second after the first dispatch, validations included."""
        return self.steps / (self.last - self.first) if self.steps else float("nan")

    def step_seconds(self) -> float:
        """Returns the seconds per step: the median over the dispatches after the first."""
        return statistics.median(self.step_times) if self.step_times else float("nan")


class CheckpointTimer:
    """Decides when a checkpoint is due in addition to those of the validations.

    Args:
      every: number of steps, or time, since the last checkpoint; None is never.
      step: step of the checkpoint that training resumes from.
    """

    def __init__(self, every: int | datetime.timedelta | None, step: int) -> None:
        amount = every.total_seconds() if isinstance(every, datetime.timedelta) else every
        if amount is not None and amount <= 0:
            raise ValueError(f"checkpoint_every is {every}; it must be more than 0.")
        self.every = every
        self.restart(step)

    def restart(self, step: int) -> None:
        """Records that the checkpoint of a step is saved."""
        self.step, self.time = step, time.monotonic()

    def is_due(self, step: int) -> bool:
        """Returns whether a checkpoint is due after `step` steps."""
        if isinstance(self.every, datetime.timedelta):
            # Clocks of several processes differ, and all of them must save the same steps.
            late = time.monotonic() - self.time >= self.every.total_seconds()
            return late and jax.process_count() == 1
        return self.every is not None and step - self.step >= self.every
