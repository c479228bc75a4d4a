"""Trains one job of a study in this process: what a launcher starts, not a command of its own.

python -m mmjax.cli.job_worker STUDY_DIR/jobs/NAME.json
"""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from mmjax.cli.failures import run_and_report_errors
from mmjax.cli.resume_hints import end_process
from mmjax.cli.streams import protect_streams


def run_job_worker(job: Path) -> None:
    """Prepares JAX, imports the study and trains the job.

    Args:
      job: the path of the job's file.
    """
    from mmjax.cli.jax_setup import set_up_jax
    from mmjax.config import experiment_source
    from mmjax.study.launchers import jobs

    setup = jobs.read_worker_setup(job)
    os.chdir(setup.working_directory)
    options = argparse.Namespace(devices=setup.devices, compilation_cache=setup.compilation_cache)
    set_up_jax(options)
    experiment_source.import_target(setup.target)
    jobs.train_job(job)


def _end_with_coordinator() -> None:
    """Asks this process to end, after a checkpoint, when its standard input closes."""
    # Not by `sys.stdin`, whose lock Python waits for at its end.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _forward_as_termination(*_: Any) -> None:
    """Treats the signal that SLURM sends before a time limit as SIGTERM."""
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    protect_streams()
    threading.Thread(target=_end_with_coordinator, daemon=True).start()
    signal.signal(signal.SIGUSR2, _forward_as_termination)
    end_process(run_and_report_errors(lambda: run_job_worker(Path(sys.argv[1]))))
