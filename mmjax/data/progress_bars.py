"""Progress bars for the preparation and the download of data, on the error stream."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from mmjax.printing.console import make_progress
from mmjax.printing.escapes import escape_control_characters

_T = TypeVar("_T")


def track_progress(items: Iterable[_T], title: str, total: int) -> Iterator[_T]:
    """Yields the items and shows how many of them were processed."""
    from rich.progress import TextColumn

    count = TextColumn("{task.completed:,.0f} of {task.total:,.0f}")
    with _make_progress(count) as bar:
        task = bar.add_task(escape_control_characters(title), total=total)
        for item in items:
            yield item
            bar.advance(task)


@contextlib.contextmanager
def show_download_progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows the number of bytes, and their total if it is known; yields `advance(bytes)`."""
    from rich.progress import DownloadColumn

    with _make_progress(DownloadColumn()) as bar:
        task = bar.add_task(escape_control_characters(title), total=total)
        yield lambda size: bar.advance(task, size)


@contextlib.contextmanager
def show_row_progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows the number of rows, and their total if it is known; yields `advance(rows)`."""
    from rich.progress import TextColumn

    count = "{task.completed:,.0f}" + (" of {task.total:,.0f}" if total is not None else " rows")
    with _make_progress(TextColumn(count)) as bar:
        task = bar.add_task(escape_control_characters(title), total=total)
        yield lambda rows: bar.advance(task, rows)


def _make_progress(count: Any) -> Any:
    from rich.progress import TimeRemainingColumn

    return make_progress(count, TimeRemainingColumn(), stderr=True)
