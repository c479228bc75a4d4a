"""Runs jobs as tasks of a Ray cluster."""

import logging
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mmjax.config import ConfigError
from mmjax.interrupts import SIGNALS
from mmjax.study.launchers.handles import FutureHandle, JobHandle, run_worker_process


class RayLauncher:
    """Runs each job as a Ray task, in a process on that task's node.

    All nodes must see the study's directory and the study's file under the same paths.

    Args:
      workers: largest number of jobs at the same time; None for as many as the cluster has CPUs.
      address: the address of a cluster, such as "auto" or "ray://head:10001"; None starts one on
        this machine, which ends with the study.
      options: the resources of a job, in the words of `ray.remote`.

    Raises:
      ConfigError: Ray is not installed, or a task has no such option.
    """

    def __init__(
        self, workers: int | None, address: str | None, options: Mapping[str, Any]
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise ConfigError("--launcher ray needs Ray: pip install 'mmjax[ray]'.") from error
        try:
            # Ray does not retry: the study does, in the same way under every launcher.
            self.task = ray.remote(max_calls=1, max_retries=0, **options)(run_worker_process)
        except ValueError as error:
            raise ConfigError(f"--worker: {error}") from error
        self.ray, self.workers, self.address = ray, workers, address
        self.references: dict[str, Any] = {}

    def submit(self, jobs: list[str]) -> list[JobHandle]:
        """Submits jobs; Ray starts them when their resources are free."""
        return [FutureHandle(self.pool.submit(self._run, job)) for job in jobs]

    def __enter__(self) -> "RayLauncher":
        """Starts a cluster or joins one."""
        own: dict[str, Any] = {}
        if not self.address:
            own = {"num_cpus": self.workers, "include_dashboard": False}
        address, level = self.address or "local", logging.ERROR
        handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
        self.ray.init(address=address, log_to_driver=False, logging_level=level, **own)
        if threading.current_thread() is threading.main_thread():
            for signum, handler in handlers.items():  # which Ray has replaced by its own
                signal.signal(signum, handler)
        self.pool = ThreadPoolExecutor(
            self.workers or max(1, int(self.ray.cluster_resources().get("CPU", 1)))
        )
        return self

    def __exit__(self, *_: object) -> None:
        """Asks the jobs that run to end after a checkpoint, and leaves the cluster."""
        # Ray interrupts the task, which then closes the input of its process and waits for it.
        for reference in list(self.references.values()):
            self.ray.cancel(reference)
        self.pool.shutdown(cancel_futures=True)
        self.ray.shutdown()

    def _run(self, job: str) -> int:
        """Runs a job and returns the exit code of its process."""
        self.references[job] = reference = self.task.remote(job)
        try:
            code: int = self.ray.get(reference)
            return code
        finally:
            del self.references[job]
