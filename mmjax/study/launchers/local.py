"""Runs jobs in processes of this machine."""

import os
import subprocess
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mmjax.study.launchers.handles import FutureHandle, JobHandle, start_worker_process


class LocalLauncher:
    """Runs up to `workers` jobs at the same time; NVIDIA GPUs are divided among them.

    Args:
      workers: number of processes.
    """

    def __init__(self, workers: int) -> None:
        self.pool = ThreadPoolExecutor(workers, initializer=self._choose_gpus)
        self.gpus = divide_gpus(list_visible_gpus(os.environ), workers)
        self.processes: set[subprocess.Popen[bytes]] = set()
        self.lock, self.thread = threading.Lock(), threading.local()
        self.closing = False

    def submit(self, jobs: list[str]) -> list[JobHandle]:
        """Submits jobs; each waits until fewer than `workers` others run."""
        return [FutureHandle(self.pool.submit(self._run, job)) for job in jobs]

    def __enter__(self) -> "LocalLauncher":
        return self

    def __exit__(self, *_: object) -> None:
        """Asks the jobs that run to end after a checkpoint, and waits for them."""
        with self.lock:
            self.closing = True
            for process in self.processes:
                assert process.stdin is not None
                process.stdin.close()
        self.pool.shutdown(cancel_futures=True)

    def _choose_gpus(self) -> None:
        """Gives a thread of the pool the GPUs of its jobs."""
        with self.lock:
            self.thread.gpus = self.gpus.pop() if self.gpus else None

    def _run(self, job: str) -> int:
        """Runs a job and returns the exit code of its process."""
        environment = None
        if self.thread.gpus is not None:
            environment = os.environ | {"CUDA_VISIBLE_DEVICES": self.thread.gpus}
        with self.lock:
            if self.closing:
                return 1
            process = start_worker_process(job, environment)
            self.processes.add(process)
        try:
            return process.wait()
        finally:
            with self.lock:
                self.processes.remove(process)
            process.stdin.close()  # type: ignore[union-attr]


def list_visible_gpus(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """Lists the NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Example:
      >>> list_visible_gpus({"CUDA_VISIBLE_DEVICES": "2,3"})
      ['2', '3']
    """
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip()]
    numbers = [path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*")]
    return sorted(filter(str.isdecimal, numbers), key=int)


def divide_gpus(gpus: list[str], workers: int) -> list[str]:
    """Divides GPUs among workers: [value of CUDA_VISIBLE_DEVICES of a worker].

    Without GPUs, or for a single worker, there is nothing to divide, and the list is empty. If
    there are more workers than GPUs, several share one; then lower XLA_PYTHON_CLIENT_MEM_FRACTION.

    Example:
      >>> divide_gpus(["0", "1", "2", "3"], 2), divide_gpus(["0"], 2), divide_gpus([], 2)
      (['0,2', '1,3'], ['0', '0'], [])
    """
    if not gpus or workers == 1:
        return []
    shares = []
    for worker in range(workers):
        shares.append(",".join(gpus[worker::workers]) or gpus[worker % len(gpus)])
    return shares
