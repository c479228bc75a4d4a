"""Ends a command on SIGINT (Ctrl-C), SIGTERM or SIGHUP with the command that resumes it."""

import contextlib
import multiprocessing
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from mmjax.interrupts import Interrupted


@contextlib.contextmanager
def add_resume_hint(command: str, directory: Path) -> Iterator[None]:
    """Adds the command that continues a run to the interruption that ends it."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        reason = str(interrupt) or "Interrupted."
        signum = getattr(interrupt, "signum", signal.SIGINT)
        again = _make_resume_command(command, directory)
        raise Interrupted(f"{reason} To continue: {again}", signum) from None


def _make_resume_command(command: str, directory: Path) -> str:
    """Returns the command that continues a run.

    Example:
      >>> _make_resume_command("mmjax run mine.py --workdir old", Path("runs/mine"))
      'mmjax run mine.py --resume --workdir runs/mine'
    """
    # --workdir and --resume are replaced, in both spellings of options.
    words, arguments = shlex.split(command), []
    while words:
        word = words.pop(0)
        if word == "--workdir" and words:
            words.pop(0)
        elif word != "--resume" and not word.startswith("--workdir="):
            arguments.append(word)
    return shlex.join([*arguments, "--resume", "--workdir", str(directory)])


def is_compiling() -> bool:
    """Checks whether a thread still compiles a program for which nothing waits anymore."""
    return any(thread.name == "mmjax-compile" for thread in threading.enumerate())


def end_process(code: int) -> None:
    """Ends the process with an exit code, or returns if that is 0.

    It does not wait for a thread that compiles, which cannot be interrupted inside of XLA.
    """
    if is_compiling():
        for child in multiprocessing.active_children():
            child.kill()
        sys.stdout.flush()  # os._exit flushes nothing
        sys.stderr.flush()
        os._exit(code)
    if code:
        sys.exit(code)
