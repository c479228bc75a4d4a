"""The progress bar: losses, throughput, time left."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax


class Report(Protocol):
    """Shows how far a run is."""

    def __call__(self, step: int, text: str, *, last: bool = False) -> None:
        """Shows the number of completed steps with a text; the last of them ends the bar."""


def console() -> Any:
    """Where tables and bars go: as wide as the screen, or as they need in a file."""
    from rich.console import Console

    found = Console()
    return found if found.is_terminal else Console(width=120)


@contextlib.contextmanager
def progress(title: str, total: int, start: int, examples_per_step: int) -> Iterator[Report]:
    """Shows a bar for the steps from `start` to `total`; yields its `Report`.

    Of several processes only the first one shows it.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("step {task.completed}/{task.fields[steps]} {task.fields[text]}", markup=False),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    hidden = jax.process_index() > 0
    begin = time.perf_counter()
    with Progress(*columns, refresh_per_second=4, console=console(), disable=hidden) as bar:
        task = bar.add_task(title, total=total, completed=start, steps=total, text="", rate="")

        def report(step: int, text: str, *, last: bool = False) -> None:
            rate = (step - start) * examples_per_step / (time.perf_counter() - begin)
            shown = f"{rate:,.0f} examples/s" if step > start else ""
            end = step if last else total
            bar.update(task, completed=step, total=end, text=text, rate=shown)

        yield report


def print_table(rows: Sequence[Sequence[str]], title: str = "", *, words: int = 1) -> None:
    """Prints a table of text, its header first; long cells break into lines.

    Args:
      rows: the header, and the rows.
      title: what stands above it.
      words: how many columns, the first ones, are words; the others are numbers.
    """
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    above = Text(title) if title else None
    shown = Table(title=above, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for i, name in enumerate(rows[0]):
        shown.add_column(Text(name), justify="left" if i < words else "right", overflow="fold")
    for row in rows[1:]:
        shown.add_row(*map(Text, row))
    console().print(shown)
