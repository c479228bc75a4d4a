"""Trains units as jobs of a launcher: submits them, shows them, and restarts those that die."""

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmjax.printing.console import print_text
from mmjax.study.launchers import Launcher
from mmjax.study.launchers.handles import JobHandle
from mmjax.study.launchers.jobs import JobProgress, WorkerSetup, read_progress, write_job
from mmjax.study.live_display import StudyDisplay
from mmjax.study.packing import Unit
from mmjax.study.train_units import Trainer, has_result, list_waiting_groups, record_failure

_MAX_STARTS = 3
"""Starts of a job whose process dies; one that fails by itself is started once."""
_POLL_SECONDS = 0.2
_LOG_LINES = 30  # the last ones of a worker's log, which go into error.txt


class _RunningJob(NamedTuple):
    """A submitted job: its units, its handle, the number of its starts, and its progress."""

    units: Sequence[Unit]
    handle: JobHandle
    starts: int
    progress: JobProgress


def run_jobs(
    launcher: Launcher,
    setup: WorkerSetup,
    display: StudyDisplay,
    trainer: Trainer,
    units: Sequence[Unit],
    *,
    test: bool,
) -> None:
    """Trains all units that have no result yet, as `train_units` does, but in other processes.

    A job whose process dies is started again, and continues from its last checkpoint; after three
    starts its units are recorded as failed.

    Args:
      launcher: starts the jobs.
      setup: what all workers have in common.
      display: shows the jobs that run.
      trainer: groups the units and records their ends.
      units: the units.
      test: whether the test split is evaluated.
    """
    waiting: dict[Path, Sequence[Unit]] = {}
    for group in list_waiting_groups(trainer, units):
        name = group[0].home.name
        waiting[write_job(setup, name, group, test=test, module=trainer.module)] = group
    handles = launcher.submit(list(map(str, waiting)))
    running = {}
    for (path, job_units), handle in zip(waiting.items(), handles, strict=True):
        running[path] = _RunningJob(job_units, handle, 1, JobProgress())
    while running:
        for path, job in list(running.items()):
            # Files, since workers may run on other machines that share only the directory.
            progress = read_progress(path)
            display.count_steps(
                progress.trained - job.progress.trained, progress.skipped - job.progress.skipped
            )
            running[path] = job._replace(progress=progress)
        texts = [job.progress.text for job in running.values() if job.progress.text]
        display.show_running_jobs(texts)
        for path, job in list(running.items()):
            if job.handle.is_done():
                del running[path]
                if restarted := _end_job(launcher, trainer, path, job):
                    running[path] = restarted
        time.sleep(_POLL_SECONDS)


def _end_job(
    launcher: Launcher, trainer: Trainer, path: Path, job: _RunningJob
) -> _RunningJob | None:
    """Records the end of a job, or starts it again if its process died."""
    # Listing the directory makes network file systems look for what other machines have removed.
    succeeded = path.name not in os.listdir(path.parent)
    log = path.with_suffix(".log")
    if not succeeded:
        reason = job.handle.describe_end()
        text = f"The process of {path.stem} died ({reason})"
        if job.starts < _MAX_STARTS:
            print_text(f"{text}; it is started again.")
            (handle,) = launcher.submit([str(path)])
            return job._replace(handle=handle, starts=job.starts + 1, progress=JobProgress())
        _record_failures(trainer, job, f"{text} {job.starts} times.", log)
        path.unlink(missing_ok=True)
    elif log.exists() and not log.stat().st_size:
        log.unlink()
    if succeeded:
        for unit in job.units:
            trainer.record_end(unit)
    return None


def _record_failures(trainer: Trainer, job: _RunningJob, reason: str, log: Path) -> None:
    """Records, for the units without a result, why their process died and its last output."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    tail = "\n".join(lines[-_LOG_LINES:])
    error = RuntimeError(f"{reason} Its last lines are:\n{tail}")
    for unit in job.units:
        if not has_result(unit):
            record_failure(trainer, unit, error)


def remove_jobs(directory: Path) -> None:
    """Removes the files of jobs of an earlier start, and the folder if no logs are left."""
    for path in (directory / "jobs").glob("*.json"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (directory / "jobs").rmdir()
