"""How a command ends that cannot go on: one line and an exit code, or a bug's traceback."""

import os
import signal
import sys
import traceback
from collections.abc import Callable

from mmjax.cli.messages import clean_warnings
from mmjax.config import ConfigError
from mmjax.interrupts import raise_on_signals


def guarded(action: Callable[[], None]) -> int:
    """Does something and gives the exit code; bad input ends in one line instead of a traceback.

    The environment variable MMJAX_TRACEBACK=1 brings the tracebacks back.
    """
    try:
        with raise_on_signals(), clean_warnings():
            action()
    except KeyboardInterrupt as interrupt:
        print(f"\n{str(interrupt) or 'Interrupted.'}", file=sys.stderr)
        return 128 + getattr(interrupt, "signum", signal.SIGINT)
    except Exception as error:
        code = exit_code(error)
        if code is None or os.environ.get("MMJAX_TRACEBACK") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        return code
    return 0


def exit_code(error: Exception) -> int | None:
    """2 for bad input, 1 for what went wrong while running, None for a bug.

    Bad input is what mmjax itself refuses: errors from deeper down are bugs until shown otherwise.
    """
    if isinstance(error, ConfigError):
        return 2
    if not _raised_in_mmjax(error):
        return None
    kinds = ((ValueError, 2), (FloatingPointError, 1), (OSError, 1))
    return next((code for kind, code in kinds if isinstance(error, kind)), None)


def _raised_in_mmjax(error: Exception) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_globals.get("__name__", "").startswith("mmjax.")
