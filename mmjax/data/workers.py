"""Worker processes that fetch data: how they start, what they tell of errors, how they end."""

import contextlib
import dataclasses
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.config.experiment_source import import_file
from mmjax.loaded_code import FILE_PREFIX

KILLED = "Worker process was terminated unexpectedly"  # how grain's message begins


class FetchError(RuntimeError):
    """An error of a worker process that cannot be sent as it is; it holds the traceback's text."""


class WorkerKilledError(ChildProcessError):
    """A worker process was killed from outside, or crashed."""


class Worker(NamedTuple):
    """What a worker process does before it fetches; grain calls it in each of them.

    Attributes:
      files: {name: file} of the modules that were imported by their path, not by their name.
    """

    files: Mapping[str, str]

    def __call__(self, number: int, workers: int) -> None:
        """Imports the experiment's file, so that its classes can be unpickled, as under spawn.

        Signals to the process group are left to the parent, which still needs data until its
        checkpoint is saved; and a worker never outlives its parent.
        """
        if hasattr(os, "setsid"):
            os.setsid()
        threading.Thread(target=exit_with_parent, daemon=True).start()
        for path in self.files.values():
            import_file(Path(path))


@dataclasses.dataclass(frozen=True)
class SentChunks:
    """Chunks whose errors can be sent to another process.

    Attributes:
      chunks: what grain calls a data source.
    """

    chunks: Any

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> Any:
        try:
            return self.chunks[number]
        except Exception as error:
            if is_sendable(error):
                raise
            text = "".join(traceback.format_exception(error)).rstrip()
            raise FetchError(f"{type(error).__name__}: {error}\n{text}") from None


def is_sendable(error: Exception) -> bool:
    """Whether an error can be pickled and read back.

    A queue drops what it cannot pickle, and its reader would wait forever.
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True


def modules_imported_by_path() -> dict[str, str]:
    """{name: file} of the experiment files that this process imported; names cannot find them."""
    files = {n: getattr(m, "__file__", None) for n, m in list(sys.modules.items())}
    return {n: os.path.abspath(f) for n, f in files.items() if f and n.startswith(FILE_PREFIX)}


@contextlib.contextmanager
def leave_signals_to_main_thread() -> Iterator[None]:
    """Blocks Ctrl-C and hangups in all threads and processes that are started inside.

    Each inherits the mask of the thread that starts it, so that a worker process cannot be
    interrupted even while Python starts in it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def exit_with_parent() -> None:
    """Waits for the parent process to end, however it does, and ends this one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def check_workers_alive(error: RuntimeError, workers: int) -> None:
    """Raises `WorkerKilledError` if an error of grain says that a worker process died."""
    if not str(error).startswith(KILLED):
        return
    code = str(error).removeprefix(f"{KILLED} with exit code ").split(".")[0]
    raise WorkerKilledError(
        f"one of the {workers} worker processes that fetch the data was killed or crashed (exit "
        f"code {code}). -9 often means that the machine ran out of memory: use fewer workers, or "
        "smaller batches. To go on, run the same command with --resume."
    ) from error
