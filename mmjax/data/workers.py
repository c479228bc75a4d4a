"""Worker processes that fetch data: how they start, report errors and end."""

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
from mmjax.loaded_code import FILE_MODULE_PREFIX

_KILLED_MESSAGE = "Worker process was terminated unexpectedly"  # the beginning of grain's message


class FetchError(RuntimeError):
    """An error of a worker process that cannot be pickled; it holds the text of the traceback."""


class WorkerKilledError(ChildProcessError):
    """A worker process was killed from outside, or crashed."""


class WorkerSetup(NamedTuple):
    """The set-up of a worker process, which grain calls in each of them before they fetch.

    Attributes:
      files: {name: file} of the modules that were imported by path, not by name.
    """

    files: Mapping[str, str]

    def __call__(self, number: int, workers: int) -> None:
        """Imports the experiment's file, so that its classes can be unpickled in a new process.

        Only the parent reacts to signals to the process group, since it needs data until its
        checkpoint is saved. A worker never outlives its parent.
        """
        if hasattr(os, "setsid"):
            os.setsid()
        threading.Thread(target=_exit_with_parent, daemon=True).start()
        for path in self.files.values():
            import_file(Path(path))


@dataclasses.dataclass(frozen=True)
class SendableChunks:
    """Chunks whose errors can be sent to another process.

    Attributes:
      chunks: the chunks by number, which grain calls a data source.
    """

    chunks: Any

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> Any:
        try:
            return self.chunks[number]
        except Exception as error:
            if is_picklable(error):
                raise
            text = "".join(traceback.format_exception(error)).rstrip()
            raise FetchError(f"{type(error).__name__}: {error}\n{text}") from None


def is_picklable(error: Exception) -> bool:
    """Checks whether an error can be pickled and read back.

    A queue drops what it cannot pickle, and its reader would wait forever.

    Example:
      >>> is_picklable(ValueError("row 3"))
      True
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True


def find_modules_imported_by_path() -> dict[str, str]:
    """Returns {name: file} of the experiment files that this process imported by path."""
    files = {n: getattr(m, "__file__", None) for n, m in list(sys.modules.items())}
    return {
        n: os.path.abspath(f) for n, f in files.items() if f and n.startswith(FILE_MODULE_PREFIX)
    }


@contextlib.contextmanager
def leave_signals_to_main_thread() -> Iterator[None]:
    """Blocks Ctrl-C and hangups in all threads and processes that the block starts.

    Each inherits the signal mask of the thread that starts it, so that a worker process cannot be
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


def _exit_with_parent() -> None:
    """Waits until the parent process ends for any reason, and then ends this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def check_workers_alive(error: RuntimeError, workers: int) -> None:
    """Raises `WorkerKilledError` if an error of grain says that a worker process died."""
    if not str(error).startswith(_KILLED_MESSAGE):
        return
    code = str(error).removeprefix(f"{_KILLED_MESSAGE} with exit code ").split(".")[0]
    raise WorkerKilledError(
        f"one of the {workers} worker processes that fetch the data was killed or crashed (exit "
        f"code {code}). -9 often means that the machine ran out of memory: use fewer workers, or "
        "smaller batches. To continue, run the same command with --resume."
    ) from error
