"""The live display of a study: arms done, running and failed, and the time left."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from mmjax.console import make_progress
from mmjax.escapes import escape_control_characters
from mmjax.study.packing import steps
from mmjax.train.progress_bar import Report


class Display:
    """Shows how far a study is; a context manager.

    Time left is reckoned from the steps that are left, each lane's counted by itself, and the time
    that those of this start took, compilation and validation included.

    Args:
      plan: the study.
      homes: {arm: its directory}.
    """

    def __init__(self, plan: Any, homes: Mapping[str, Path]) -> None:
        self.homes, self.begin = homes, time.perf_counter()
        lanes, tuning = len(plan.study.seeds), plan.study.tuning
        trials = tuning.trials * len(tuning.seeds) if tuning else 0
        each = {name: steps(plan.build(arm.config)) for name, arm in plan.arms.items()}
        waiting = [n for n in plan.arms if not (homes[n] / "result.json").exists()]
        self.left = float(sum(each[name] * (lanes + trials) for name in waiting))
        self.made, self.running = 0.0, ""
        self.bar = make_progress("{task.fields[told]}")
        self.whole = self.bar.add_task("study", total=max(self.left, 1), told="")
        self.program = self.bar.add_task("", total=1, told="", visible=False)

    def __enter__(self) -> "Display":
        self.bar.start()
        self.refresh()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def refresh(self, more: float | int = 0.0) -> None:
        """Counts the arms again, after `more` steps of lanes."""
        self.made += more
        done = sum((home / "result.json").exists() for home in self.homes.values())
        failed = sum((home / "error.txt").exists() for home in self.homes.values())
        told = f"{done} of {len(self.homes)} arms done, {failed} failed"
        if self.running:
            told += f"; running {self.running}"
        if self.made:
            seconds = time.perf_counter() - self.begin
            left = max(self.left - self.made, 0) * seconds / self.made
            told += f"; about {shown(left)} left"
        self.bar.update(self.whole, completed=self.made, told=told)

    @contextmanager
    def show(
        self, title: str, total: int, start: int, examples_per_step: int, *, lanes: int
    ) -> Iterator[Report]:
        """Shows the steps of a program of so many lanes; for `fit`."""
        self.running, done = escape_control_characters(title), [start]
        self.left -= lanes * start
        self.bar.update(self.program, visible=True, total=total, completed=start, told="")

        def report(step: int, text: str, *, last: bool = False) -> None:
            end = step if last else total
            told = escape_control_characters(f"step {step}/{total} {text}")
            self.bar.update(self.program, completed=step, total=end, told=told)
            self.refresh(lanes * (step - done[0]))
            done[0] = step

        try:
            yield report
        finally:
            self.running = ""
            self.bar.update(self.program, visible=False)
            self.refresh()


def shown(seconds: float) -> str:
    """A time for the eye: 40 s, 12 min or 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
