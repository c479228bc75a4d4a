"""Prints the warnings of a command, one line each."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from mmjax.printing.console import print_text


@contextlib.contextmanager
def print_warnings_as_lines() -> Iterator[None]:
    """Prints every warning as "warning: ..." on one line of stderr, the same text only once.

    Warnings of the package `warnings` and of mmjax's logger get the same form, without file, line
    and source.
    """
    printed: set[str] = set()

    def show(message: Any) -> None:
        line = f"warning: {' '.join(str(message).split())}"
        if line not in printed:
            printed.add(line)
            print_text(line, file=sys.stderr)

    before, logger, handler = warnings.showwarning, logging.getLogger("mmjax"), _Handler(show)
    warnings.showwarning = lambda message, *_, **__: show(message)
    logger.addHandler(handler)
    try:
        yield
    finally:
        warnings.showwarning = before
        logger.removeHandler(handler)


class _Handler(logging.Handler):
    """Calls a function with every message."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(record.getMessage())
