"""Runs jobs as arrays of SLURM jobs, by submitit."""

import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.config import ConfigError
from mmjax.study.launchers.handles import JobHandle, run_worker_process


class _SlurmHandle:
    """Handle of a job of submitit.

    Its result is not read: submitit stores it as a pickle, which could execute code.
    """

    def __init__(self, job: Any) -> None:
        self.job = job

    def is_done(self) -> bool:
        """Checks whether the job has ended; submitit asks SLURM about once a minute."""
        return bool(self.job.done())

    def describe_end(self) -> str:
        """Describes the job by its number, its state and its log."""
        return f"SLURM job {self.job.job_id}: {self.job.state}; see {self.job.paths.stderr}"


class SlurmLauncher:
    """Runs the jobs of a study as arrays of SLURM jobs, one task each.

    All nodes must see the study's directory and the study's file under the same paths.

    Args:
      workers: largest number of jobs of an array at the same time; None for SLURM's own limit.
      folder: where scripts and logs go.
      options: those of submitit's executor, such as {"slurm_partition": "gpu", "timeout_min": 600,
        "slurm_gpus_per_node": 1, "slurm_setup": ...}. {"cluster": "local"} runs the jobs as
        processes of this machine, to try out what SLURM would run.

    Raises:
      ConfigError: submitit is not installed, there is no SLURM, or an option is unknown.
    """

    def __init__(self, workers: int | None, folder: str, options: Mapping[str, Any]) -> None:
        if importlib.util.find_spec("submitit") is None:
            raise ConfigError("--launcher slurm needs submitit: pip install 'mmjax[slurm]'.")
        options = {"timeout_min": 24 * 60, **options}
        cluster = options.pop("cluster", "slurm")
        if workers is not None and cluster == "slurm":
            options.setdefault("slurm_array_parallelism", workers)
        self.folder, self.cluster, self.options = Path(folder), cluster, options
        with tempfile.TemporaryDirectory() as unused:
            self._make_executor(Path(unused))  # checks the options
        self.submitted: list[Any] = []

    def _make_executor(self, folder: Path) -> Any:
        """Makes the executor, and with it its folder."""
        import submitit

        try:
            executor = submitit.AutoExecutor(folder=folder, cluster=self.cluster)
            executor.update_parameters(**self.options)
        except (ValueError, TypeError, NameError, RuntimeError) as error:
            raise ConfigError(f"--launcher slurm: {error}") from error
        return executor

    def submit(self, jobs: list[str]) -> list[JobHandle]:
        """Submits jobs as one array."""
        executor = self._make_executor(self.folder)
        with executor.batch():
            submitted = [executor.submit(run_worker_process, job) for job in jobs]
        self.submitted += submitted
        return [_SlurmHandle(job) for job in submitted]

    def __enter__(self) -> "SlurmLauncher":
        return self

    def __exit__(self, *_: object) -> None:
        """Cancels the jobs that have not ended, and removes what could execute code."""
        for job in self.submitted:
            if not job.done():
                job.cancel(check=False)
        for path in self.folder.glob("*.pkl"):
            path.unlink(missing_ok=True)
