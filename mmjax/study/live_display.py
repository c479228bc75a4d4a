"""Live display of a study: number of completed, running and failed arms, and time left."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from mmjax.printing.console import make_progress
from mmjax.printing.escapes import escape_control_characters
from mmjax.study.packing import count_steps
from mmjax.train.reporting.progress_bar import ReportProgress

_MAX_SHOWN_JOBS = 4


class StudyDisplay:
    """Shows the progress of a study; a context manager.

    The time left is extrapolated from the steps that this start has trained (summed over replicas)
    and the time that they took, compilation and validation included.

    Args:
      plan: the study.
      homes: {arm: its directory}.
    """

    def __init__(self, plan: Any, homes: Mapping[str, Path]) -> None:
        self.homes, self.begin = homes, time.perf_counter()
        seeds, tuning = len(plan.study.seeds), plan.study.tuning
        trials = tuning.trials * len(tuning.seeds) if tuning else 0
        self.total_steps = 0.0
        for name, arm in plan.arms.items():
            if not (homes[name] / "result.json").exists():
                self.total_steps += count_steps(plan.build(arm.config)) * (seeds + trials)
        self.completed_steps, self.running = 0.0, ""
        self.completed, self.failed = 0, 0
        self.units = "folds of arms" if plan.study.folds else "arms"
        self.bar = make_progress("{task.fields[status]}")
        self.study_task = self.bar.add_task("study", total=max(self.total_steps, 1), status="")
        self.program_task = self.bar.add_task("", total=1, status="", visible=False)

    def __enter__(self) -> "StudyDisplay":
        self.bar.start()
        self.count_arms()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def count_arms(self) -> None:
        """Counts the completed and the failed arms again."""
        self.completed = sum((home / "result.json").exists() for home in self.homes.values())
        self.failed = sum((home / "error.txt").exists() for home in self.homes.values())
        self._refresh()

    def count_steps(self, trained: int, skipped: int = 0) -> None:
        """Counts more training steps, summed over replicas; an earlier start trained the skipped.

        The time left is that of the others.
        """
        self.completed_steps += trained
        self.total_steps -= skipped
        self._refresh()

    def show_running_jobs(self, texts: Sequence[str]) -> None:
        """Shows the jobs that run at the same time, each by its name and progress."""
        self.running = escape_control_characters(", ".join(texts[:_MAX_SHOWN_JOBS]))
        if len(texts) > _MAX_SHOWN_JOBS:
            self.running += f" and {len(texts) - _MAX_SHOWN_JOBS} more"
        self._refresh()

    def _refresh(self) -> None:
        """Updates the line of the study."""
        status = f"{self.completed} of {len(self.homes)} {self.units} done, {self.failed} failed"
        if self.running:
            status += f"; running {self.running}"
        if self.completed_steps:
            seconds = time.perf_counter() - self.begin
            steps_left = max(self.total_steps - self.completed_steps, 0)
            status += f"; about {format_duration(steps_left * seconds / self.completed_steps)} left"
        self.bar.update(self.study_task, completed=self.completed_steps, status=status)

    @contextmanager
    def show(
        self, title: str, total: int, start: int, examples_per_step: int, *, replicas: int
    ) -> Iterator[ReportProgress]:
        """Shows the steps of a program of `replicas` replicas; a `show` of `mmjax.fit`."""
        self.running, last_step = escape_control_characters(title), start
        self.total_steps -= replicas * start  # trained by an earlier start
        self.bar.update(self.program_task, visible=True, total=total, completed=start, status="")

        def report(step: int, text: str, *, last: bool = False) -> None:
            nonlocal last_step
            end = step if last else total
            status = escape_control_characters(f"step {step}/{total} {text}")
            self.bar.update(self.program_task, completed=step, total=end, status=status)
            self.count_steps(replicas * (step - last_step))
            last_step = step

        try:
            yield report
        finally:
            self.running = ""
            self.bar.update(self.program_task, visible=False)
            self._refresh()


def format_duration(seconds: float) -> str:
    """Formats a duration: 40 s, 12 min or 3.5 h.

    Example:
      >>> format_duration(750.0)
      '12 min'
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
