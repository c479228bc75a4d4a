"""The progress bar: losses, throughput, time left."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

import jax

from mmjax.escapes import escape_control_characters
from mmjax.terminal import console

Report = Callable[[int, Mapping[str, float]], None]


@contextlib.contextmanager
def progress(title: str, total: int, start: int, examples_per_step: int) -> Iterator[Report]:
    """Shows a bar for the steps from `start` to `total`; yields `report(step, losses)`.

    Of several processes only the first one shows it.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("step {task.completed}/{task.total} {task.fields[losses]}", markup=False),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    title = escape_control_characters(title)
    hidden = jax.process_index() > 0
    begin = time.perf_counter()
    with Progress(*columns, refresh_per_second=4, console=console(), disable=hidden) as bar:
        task = bar.add_task(title, total=total, completed=start, losses="", rate="")

        def report(step: int, losses: Mapping[str, float]) -> None:
            rate = (step - start) * examples_per_step / (time.perf_counter() - begin)
            shown = " ".join(f"{name} {value:.3g}" for name, value in losses.items())
            shown = escape_control_characters(shown)
            bar.update(task, completed=step, losses=shown, rate=f"{rate:,.0f} examples/s")

        yield report
