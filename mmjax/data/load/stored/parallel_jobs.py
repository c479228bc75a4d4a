"""Jobs whose results are files: they run in several processes, and never twice."""

import concurrent.futures
import contextlib
import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax import files
from mmjax.data.progress_bars import track_progress
from mmjax.data.workers import FetchError, WorkerKilledError, is_picklable

_WORKER_MODULE = "mmjax.data.load.stored.job_process"
# Below it, the jobs take less time than the start of processes.
_MIN_BYTES = 1 << 25


class Job(NamedTuple):
    """A call whose result is kept.

    Attributes:
      name: of the file with the result; it depends on all that the result depends on.
      function: a function of a module; it returns what JSON can hold.
      arguments: its arguments.
      size: number of bytes that it reads, about.
    """

    name: str
    function: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...]
    size: int = 0


class JobFolder:
    """Runs jobs and keeps their results.

    Args:
      path: the folder, which need not exist.
      processes: how many processes run jobs.
    """

    def __init__(self, path: Path, processes: int):
        self.path, self._processes = path, processes

    def read(self, job: Job) -> dict[str, Any] | None:
        """Reads the result of an earlier run of a job; None if there is none."""
        path = self._locate(job)
        if not path.is_file():
            return None
        try:
            result: dict[str, Any] = files.read_json(path)
        except files.DamagedFileError:
            files.set_aside_damaged(path)
            return None
        return result

    def run(
        self,
        jobs: Sequence[Job],
        title: str,
        is_usable: Callable[[Job, dict[str, Any]], bool] = lambda job, result: True,
    ) -> Iterator[dict[str, Any]]:
        """Yields the results of all jobs in order; those that are kept are not run again.

        Args:
          jobs: the jobs.
          title: title of the progress bar.
          is_usable: says whether a kept result can be used.

        Raises:
          WorkerKilledError: a process died.
        """
        kept: list[bool] = []
        for job in jobs:
            result = self.read(job)
            kept.append(result is not None and is_usable(job, result))
        missing = [job for job, is_kept in zip(jobs, kept, strict=True) if not is_kept]
        processes = min(self._processes, len(missing))
        if sum(job.size for job in missing) < _MIN_BYTES:
            processes = 1
        self.path.mkdir(parents=True, exist_ok=True)
        done: Any = _run_in_processes(missing, processes, self._write)
        if sum(job.size for job in missing) >= _MIN_BYTES:
            done = track_progress(done, title, len(missing))
        for job, is_kept in zip(jobs, kept, strict=True):
            if is_kept:
                yield self.read(job) or {}
                continue
            next(done)
            # Read back, so that a new result is what a later start will find.
            yield files.read_json(self._locate(job))
        for _ in done:
            pass

    def _write(self, job: Job, result: dict[str, Any]) -> None:
        files.write_json(self._locate(job), result)

    def _locate(self, job: Job) -> Path:
        return self.path / f"{job.name}.json"


def _run_in_processes(
    jobs: Sequence[Job], processes: int, store: Callable[[Job, dict[str, Any]], None]
) -> Iterator[None]:
    """Runs and stores jobs; yields when the next one in order is stored."""
    if processes <= 1:
        for job in jobs:
            store(job, job.function(*job.arguments))
            yield
        return
    idle: queue.Queue[subprocess.Popen[bytes]] = queue.Queue()
    started = [_start_process() for _ in range(processes)]
    for process in started:
        idle.put(process)

    def run_job(job: Job) -> None:
        process = idle.get()
        try:
            # Stored as soon as it is there, since the next one in order may take long.
            store(job, _call_process(process, job))
        finally:
            idle.put(process)

    pool = concurrent.futures.ThreadPoolExecutor(processes)
    try:
        yield from pool.map(run_job, jobs)
    finally:
        for process in started:
            process.kill()
        pool.shutdown(cancel_futures=True)
        for process in started:
            with contextlib.suppress(BrokenPipeError):
                process.communicate()


def _start_process() -> "subprocess.Popen[bytes]":
    # A module of its own, since multiprocessing would run the user's script again in each process.
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-m", _WORKER_MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # only the parent reacts to Ctrl-C
    )


def _call_process(process: "subprocess.Popen[bytes]", job: Job) -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None
    try:
        pickle.dump((job.function, job.arguments), process.stdin)
        process.stdin.flush()
        error, result = pickle.load(process.stdout)
    except (OSError, EOFError, pickle.UnpicklingError) as reason:
        code = process.wait()
        raise WorkerKilledError(
            f"a process that reads the table was killed or crashed (exit code {code}). -9 often "
            "means that the machine ran out of memory: give fewer scan_processes. What was read so "
            "far is kept; start again to continue."
        ) from reason
    if error is not None:
        raise error
    return dict(result)


def serve_jobs() -> None:
    """Runs the jobs that come over the standard input until it ends: the main loop of a process."""
    # Whatever a library prints must not be mixed with the results.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            function, arguments = pickle.load(sys.stdin.buffer)
            try:
                answer: tuple[Exception | None, Any] = None, function(*arguments)
            except Exception as error:
                answer = error, None
            if answer[0] is not None and not is_picklable(answer[0]):
                answer = FetchError(f"{type(answer[0]).__name__}: {answer[0]}"), None
            pickle.dump(answer, output)
            output.flush()
