"""Handles of submitted jobs, and the process in which each job runs.

Whether a job succeeded is not asked of the launcher: a worker removes the file of its job as the
last thing that it does.
"""

import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Protocol, runtime_checkable

WORKER_MODULE = "mmjax.cli.job_worker"


@runtime_checkable
class JobHandle(Protocol):
    """A submitted job."""

    def is_done(self) -> bool:
        """Checks whether the job has ended, in whatever way."""

    def describe_end(self) -> str:
        """Describes how the process of a job that has ended did end, such as "SIGKILL"."""


class FutureHandle:
    """Handle of a job whose future returns the exit code of its process.

    Args:
      future: the future.
    """

    def __init__(self, future: "Future[int]") -> None:
        self.future = future

    def is_done(self) -> bool:
        """Checks whether the job has ended."""
        return self.future.done()

    def describe_end(self) -> str:
        """Describes how the process ended."""
        try:
            return describe_exit_code(self.future.result())
        except (Exception, CancelledError) as error:  # Ray raises errors of many kinds
            lines = str(error).strip().splitlines() or [""]
            return f"{type(error).__name__}: {lines[0]}"


def run_worker_process(job: str, environment: dict[str, str] | None = None) -> int:
    """Runs a job in a new process of this machine, and returns its exit code.

    The process writes to a log beside the job's file. It is asked to end, after a checkpoint, when
    its standard input closes: so it ends with this process, however that ends.

    Args:
      job: the path of the job's file.
      environment: the variables of its environment; None for those of this process.
    """
    with start_worker_process(job, environment) as process:
        try:
            while process.poll() is None:  # Ray's cancellation would not interrupt a `wait`
                time.sleep(0.1)
            return int(process.returncode)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def start_worker_process(
    job: str, environment: dict[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Starts the process of `run_worker_process`."""
    # -P: as under the console script, the working directory is not a place of modules.
    command = [sys.executable, "-P", "-m", WORKER_MODULE, job]
    with Path(job).with_suffix(".log").open("ab") as log:
        # A session of its own: Ctrl-C in the terminal reaches the coordinator alone.
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def describe_exit_code(code: int) -> str:
    """Describes an exit code, which names a signal if it is negative or larger than 128.

    Example:
      >>> describe_exit_code(-9), describe_exit_code(143), describe_exit_code(2)
      ('SIGKILL', 'SIGTERM', 'exit code 2')
    """
    number = -code if code < 0 else code - 128
    if number in {s.value for s in signal.Signals}:
        return signal.Signals(number).name
    return f"exit code {code}"
