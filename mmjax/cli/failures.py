"""Ends a command that fails: with one line and an exit code, or with a bug's traceback."""

import functools
import gc
import linecache
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mmjax.cli.streams import describe_lost_output
from mmjax.cli.warning_lines import print_warnings_as_lines
from mmjax.interrupts import raise_on_signals
from mmjax.loaded_code import is_library_file, list_traceback_modules
from mmjax.printing.console import print_text

_TRACEBACK_HINT = "Set MMJAX_TRACEBACK=1 for the whole traceback."
EPILOG = "The environment variable MMJAX_TRACEBACK=1 shows whole tracebacks of errors."


class _CodeLine(NamedTuple):
    """A line of the user's own code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """Formats the location and the line itself, as tracebacks show them."""
        within = f", in {self.function}" if self.function else ""
        source = linecache.getline(self.file, self.line).strip()
        return f'  File "{self.file}", line {self.line}{within}' + (source and f"\n    {source}")


def run_and_report_errors(action: Callable[[], None]) -> int:
    """Runs an action and returns the exit code; invalid input is reported in one line.

    If the user's own code failed, its last line is shown too. The environment variable
    MMJAX_TRACEBACK=1 shows the traceback instead.
    """
    _delay_garbage_collection()
    try:
        with raise_on_signals(), print_warnings_as_lines():
            action()
    except KeyboardInterrupt as interrupt:
        print_text(f"\n{str(interrupt) or 'Interrupted.'}", file=sys.stderr)
        return 128 + getattr(interrupt, "signum", signal.SIGINT)
    except Exception as error:
        line = _find_user_code_line(error)
        code = _choose_exit_code(error) or (1 if line else None)
        if code is None or os.environ.get("MMJAX_TRACEBACK") == "1":
            raise
        print_text(_describe_error(error, line), file=sys.stderr)
        return code
    if reason := describe_lost_output():
        print_text(f"error: some of the output could not be written: {reason}.", file=sys.stderr)
        return 1
    return 0


@functools.cache  # once per process: what is frozen stays
def _delay_garbage_collection() -> None:
    """Collects no garbage until a command has started, and then looks at new objects only.

    Imports and tracing create objects that stay alive, 330,000 up to the main job's first step: at
    Python's default threshold, looking for garbage among them takes half a second.
    """

    def end_start(phase: str, info: dict[str, int]) -> None:
        gc.callbacks.remove(end_start)
        gc.freeze()
        gc.set_threshold(50_000)

    gc.callbacks.append(end_start)
    gc.set_threshold(400_000)


def _choose_exit_code(error: Exception) -> int | None:
    """Returns 2 for invalid input, 1 for an error while running, None for a bug.

    Errors that mmjax raises itself are about the input, and errors of the operating system about
    the system; all others count as bugs.
    """
    from mmjax.config.errors import ConfigError  # here because importing mmjax.config is slow

    if isinstance(error, ConfigError):
        return 2
    if isinstance(error, OSError | UnicodeEncodeError):
        return 1
    if not _raised_in_mmjax(error):
        return None
    if isinstance(error, ValueError):
        return 2
    return 1 if isinstance(error, FloatingPointError | MemoryError) else None


def _describe_error(error: Exception, line: _CodeLine | None) -> str:
    """Formats an error: its message, its type unless mmjax raised it, the user's line, the hint."""
    from mmjax.config.build import FIDDLE_CONTEXT
    from mmjax.config.errors import ConfigError

    text = FIDDLE_CONTEXT.sub("", str(error)).strip()
    known = isinstance(error, ConfigError) or _raised_in_mmjax(error)
    if isinstance(error, UnicodeEncodeError):
        text += "; set PYTHONUTF8=1 to use file names of any language"
    if not known and not isinstance(error, OSError | UnicodeEncodeError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    lines = [f"error: {text}", *([str(line)] if line else [])]
    return "\n".join(lines if known and not line else [*lines, _TRACEBACK_HINT])


def _find_user_code_line(error: BaseException) -> _CodeLine | None:
    """Finds the innermost line of the user's code in the traceback of an error or its causes."""
    for cause in reversed(list(_iterate_causes(error))):
        if isinstance(cause, SyntaxError) and cause.filename and _is_user_file(cause.filename):
            return _CodeLine(cause.filename, cause.lineno or 0, "")
        frames = traceback.extract_tb(cause.__traceback__)
        places = [f for f in frames if _is_user_file(f.filename)]
        if places:
            return _CodeLine(places[-1].filename, places[-1].lineno or 0, places[-1].name)
    return None


def _iterate_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and its causes, back to the first."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_user_file(name: str) -> bool:
    """Checks that a file is neither of mmjax, nor of Python, nor of an installed package."""
    return not name.startswith("<") and not is_library_file(os.path.abspath(name))


def _raised_in_mmjax(error: Exception) -> bool:
    modules = list_traceback_modules(error)
    return bool(modules) and modules[-1].startswith("mmjax.")
