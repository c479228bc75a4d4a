"""The progress bar: losses, throughput, time left."""

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol

import jax

from mmjax.printing.console import make_progress
from mmjax.printing.escapes import escape_control_characters


class ReportProgress(Protocol):
    """Shows the progress of a run."""

    def __call__(self, step: int, text: str, *, last: bool = False) -> None:
        """Shows the number of completed steps with a text; `last` ends the bar at this step."""


@contextlib.contextmanager
def show_progress(
    title: str, total: int, start: int, examples_per_step: int
) -> Iterator[ReportProgress]:
    """Shows a bar for the steps from `start` to `total`; yields its `ReportProgress`.

    If there are several processes, only the first one shows it.
    """
    from rich.progress import TimeRemainingColumn

    columns = (
        "step {task.completed}/{task.fields[steps]} {task.fields[text]}",
        "{task.fields[rate]}",
        TimeRemainingColumn(),
    )
    title = escape_control_characters(title)
    hidden = jax.process_index() > 0
    begin = time.perf_counter()
    with make_progress(*columns, disable=hidden) as bar:
        task = bar.add_task(title, total=total, completed=start, steps=total, text="", rate="")

        def report(step: int, text: str, *, last: bool = False) -> None:
            rate = (step - start) * examples_per_step / (time.perf_counter() - begin)
            rate_text = f"{rate:,.0f} examples/s" if step > start else ""
            end, text = step if last else total, escape_control_characters(text)
            bar.update(task, completed=step, total=end, text=text, rate=rate_text)

        yield report
