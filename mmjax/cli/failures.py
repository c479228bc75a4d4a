"""How a command ends that cannot go on: one line and an exit code, or a bug's traceback."""

import linecache
import os
import signal
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mmjax.cli.streams import lost_output
from mmjax.cli.warning_lines import clean_warnings
from mmjax.console import print_text
from mmjax.interrupts import raise_on_signals

HINT = "Set MMJAX_TRACEBACK=1 for the whole traceback."
EPILOG = "The environment variable MMJAX_TRACEBACK=1 shows whole tracebacks of errors."


class Place(NamedTuple):
    """A line of the user's own code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """The place and the line itself, as tracebacks show them."""
        within = f", in {self.function}" if self.function else ""
        source = linecache.getline(self.file, self.line).strip()
        return f'  File "{self.file}", line {self.line}{within}' + (source and f"\n    {source}")


def guarded(action: Callable[[], None]) -> int:
    """Does something and gives the exit code; bad input ends in one line instead of a traceback.

    Where the user's own code failed, its last line is shown too. The environment variable
    MMJAX_TRACEBACK=1 brings the tracebacks back.
    """
    try:
        with raise_on_signals(), clean_warnings():
            action()
    except KeyboardInterrupt as interrupt:
        print_text(f"\n{str(interrupt) or 'Interrupted.'}", file=sys.stderr)
        return 128 + getattr(interrupt, "signum", signal.SIGINT)
    except Exception as error:
        place = find_user_place(error)
        code = exit_code(error) or (1 if place else None)
        if code is None or os.environ.get("MMJAX_TRACEBACK") == "1":
            raise
        print_text(describe_error(error, place), file=sys.stderr)
        return code
    if reason := lost_output():
        print_text(f"error: some of the output could not be written: {reason}.", file=sys.stderr)
        return 1
    return 0


def exit_code(error: Exception) -> int | None:
    """2 for bad input, 1 for what went wrong while running, None for a bug.

    Bad input is what mmjax itself refuses, and what the system refuses is the system's: other
    errors from deeper down are bugs until shown otherwise.
    """
    from mmjax.config.errors import ConfigError  # imports much, and only errors need it

    if isinstance(error, ConfigError):
        return 2
    if isinstance(error, OSError | UnicodeEncodeError):
        return 1
    if not _raised_in_mmjax(error):
        return None
    kinds = ((ValueError, 2), (FloatingPointError, 1))
    return next((code for kind, code in kinds if isinstance(error, kind)), None)


def describe_error(error: Exception, place: Place | None) -> str:
    """Formats an error: what mmjax says of it, or else its type too; the user's line; the hint."""
    from mmjax.config.build import CONTEXT
    from mmjax.config.errors import ConfigError

    text = CONTEXT.sub("", str(error)).strip()
    known = isinstance(error, ConfigError) or _raised_in_mmjax(error)
    if isinstance(error, UnicodeEncodeError):
        text += "; PYTHONUTF8=1 lets file names be of any language"
    if not known and not isinstance(error, OSError | UnicodeEncodeError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    lines = [f"error: {text}", *([str(place)] if place else [])]
    return "\n".join(lines if known and not place else [*lines, HINT])


def find_user_place(error: BaseException) -> Place | None:
    """The innermost line of the user's code that an error, or what caused it, went through."""
    for one in reversed(list(_causes(error))):
        if isinstance(one, SyntaxError) and one.filename and _is_user_file(one.filename):
            return Place(one.filename, one.lineno or 0, "")
        frames = traceback.extract_tb(one.__traceback__)
        places = [f for f in frames if _is_user_file(f.filename)]
        if places:
            return Place(places[-1].filename, places[-1].lineno or 0, places[-1].name)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it was raised from, to the first."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_user_file(name: str) -> bool:
    """Whether a file is neither mmjax's, nor Python's, nor of an installed package."""
    if name.startswith("<") or {"site-packages", "dist-packages"} & set(Path(name).parts):
        return False
    library = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    own = str(Path(__file__).parents[1])
    return not os.path.abspath(name).startswith((own + os.sep, *library))


def _raised_in_mmjax(error: Exception) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_globals.get("__name__", "").startswith("mmjax.")
