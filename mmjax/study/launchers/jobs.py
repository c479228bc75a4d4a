"""Jobs of a study as files, and what a worker does with one.

jobs/NAME.json           the job; the worker removes it when the job is completed
jobs/NAME.progress.json  how far its training is
jobs/NAME.log            what the worker printed; removed if that is nothing
"""

import contextlib
import datetime
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax

from mmjax import config as configs
from mmjax import files
from mmjax.config import references
from mmjax.runs.prediction.prediction_files import write_test_predictions
from mmjax.study.packing import ExperimentBuilder, Unit, make_builder
from mmjax.study.train_units import Trainer, train_units
from mmjax.train.reporting.progress_bar import ReportProgress

_SECONDS_BETWEEN_REPORTS = 0.5


class WorkerSetup(NamedTuple):
    """What all workers of a study have in common.

    Attributes:
      directory: the study's directory.
      working_directory: where relative paths begin.
      target: the study, FILE_OR_MODULE[:STUDY], whose import defines the experiment's own names.
      module: the name of the base experiment's module; None if it has none.
      base: the stored configuration of the base experiment.
      folds: number of folds of the data set; 0 for none.
      devices: number of devices; None as `choose_devices` decides.
      max_replicas: largest number of replicas per program; None for as many as the memory holds.
      checkpoint_every: steps or time between checkpoints; see `mmjax.fit`.
      compilation_cache: folder of compiled programs; None for none.
      predictions: whether to store predictions on the test split with every arm.
    """

    directory: Path
    working_directory: str
    target: str
    module: str | None
    base: str
    folds: int
    devices: int | None
    max_replicas: int | None
    checkpoint_every: int | datetime.timedelta | None
    compilation_cache: Path | None
    predictions: bool


class JobProgress(NamedTuple):
    """Progress of a job's process.

    Attributes:
      text: what it trains, and at which step.
      trained: training steps that it has made, summed over replicas.
      skipped: those that earlier processes had made.
    """

    text: str = ""
    trained: int = 0
    skipped: int = 0


def write_job(
    setup: WorkerSetup, name: str, units: Sequence[Unit], *, test: bool, module: Any
) -> Path:
    """Writes the file of a job, and returns its path.

    Args:
      setup: what all jobs have in common.
      name: the name of the job.
      units: the units of one program.
      test: whether the test split is evaluated.
      module: the module of the base experiment's file.
    """
    path = setup.directory.resolve() / "jobs" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    rows = [_unit_to_json(unit, setup.directory, module) for unit in units]
    files.write_json(path, {"setup": _setup_to_json(setup), "test": test, "units": rows})
    get_progress_path(path).unlink(missing_ok=True)
    return path


def _unit_to_json(unit: Unit, directory: Path, module: ModuleType | None) -> dict[str, Any]:
    """Converts a unit to what JSON can hold, as `_parse_units` reads it."""
    return {
        "home": str(unit.home.relative_to(directory)),
        "config": configs.dump_config(unit.config, module),
        "seeds": list(unit.seeds),
        "numbers": dict(unit.numbers),
    }


def _setup_to_json(setup: WorkerSetup) -> dict[str, Any]:
    """Converts a setup to what JSON can hold, as `read_worker_setup` reads it."""
    every = setup.checkpoint_every
    return {
        **setup._asdict(),
        "directory": str(setup.directory.resolve()),
        "compilation_cache": setup.compilation_cache and str(setup.compilation_cache.absolute()),
        "checkpoint_every": {"seconds": every.total_seconds()}
        if isinstance(every, datetime.timedelta)
        else every,
    }


def get_progress_path(job: Path) -> Path:
    """Returns the path of the progress of a job."""
    return job.with_suffix(".progress.json")


def read_progress(job: Path) -> JobProgress:
    """Reads the progress of a job; nothing yet if its process has not begun to train."""
    with contextlib.suppress(OSError, *files.DAMAGE_ERRORS):
        progress = files.read_json(get_progress_path(job))
        return JobProgress(progress["text"], progress["trained"], progress["skipped"])
    return JobProgress()


def read_worker_setup(job: Path) -> WorkerSetup:
    """Reads what the job's file says about the process that trains it.

    Raises:
      DamagedFileError: the file is damaged.
    """
    with files.name_damaged_file(job):
        setup = WorkerSetup(**files.read_json(job)["setup"])
        every = setup.checkpoint_every
        cache = setup.compilation_cache
        return setup._replace(
            directory=Path(setup.directory),
            compilation_cache=cache and Path(cache),
            checkpoint_every=datetime.timedelta(**every) if isinstance(every, dict) else every,
        )


def train_job(job: Path) -> None:
    """Trains the units of a job that have no result yet, and removes the job's file.

    The module of the study must have been imported. A unit that fails has an `error.txt`.

    Args:
      job: the path of the job's file.
    """
    setup = read_worker_setup(job)
    own = sys.modules[setup.module] if setup.module else None

    def load(text: str) -> Any:
        return configs.load_config(
            text, allow=sorted(references.list_foreign_modules(text)), own=own
        )

    build = make_builder(load(setup.base), setup.folds)
    stored = files.read_json(job)
    units = _parse_units(setup.directory, stored["units"], load)
    trainer = _make_trainer(setup, build, own, _ProgressFile(get_progress_path(job)).show)
    train_units(trainer, units, test=stored["test"])
    if setup.predictions and stored["test"]:
        write_unit_predictions(build, units)
    get_progress_path(job).unlink(missing_ok=True)
    job.unlink(missing_ok=True)  # a start of the study may have removed it


def _parse_units(
    directory: Path, rows: Sequence[Mapping[str, Any]], load: Callable[[str], Any]
) -> list[Unit]:
    """Returns the units that `write_job` has written; `load` reads their configurations."""
    units = []
    for row in rows:
        home, config = directory / row["home"], load(row["config"])
        units.append(Unit(home, config, tuple(row["seeds"]), dict(row["numbers"])))
    return units


def _make_trainer(
    setup: WorkerSetup, build: ExperimentBuilder, module: ModuleType | None, show: Any
) -> Trainer:
    """Makes the settings with which a worker trains."""
    return Trainer(
        programs=setup.directory / "programs",
        build=build,
        module=module,
        devices=None if setup.devices is None else jax.devices()[: setup.devices],
        max_replicas=setup.max_replicas,
        memory=None,
        checkpoint_every=setup.checkpoint_every,
        show=show,
        record_end=lambda unit: None,
    )


def write_unit_predictions(build: ExperimentBuilder, units: Sequence[Unit]) -> None:
    """Stores predictions on the test split of every unit that has a result."""
    for unit in units:
        if (unit.home / "result.json").exists():
            write_test_predictions(build(unit.config), unit.home, unit.seeds)


class _ProgressFile:
    """Writes the progress of a worker to a file, at most twice per second."""

    def __init__(self, path: Path) -> None:
        self.path, self.written = path, 0.0
        self.progress = JobProgress()

    @contextlib.contextmanager
    def show(
        self, title: str, total: int, start: int, examples_per_step: int, *, replicas: int
    ) -> Iterator[ReportProgress]:
        """Shows the steps of a program of `replicas` replicas; a `show` of `mmjax.fit`."""
        skipped = self.progress.skipped + replicas * start
        before, last_step = self.progress.trained, start

        def report(step: int, text: str, *, last: bool = False) -> None:
            nonlocal last_step
            last_step = step
            trained = before + replicas * (step - start)
            self.progress = JobProgress(f"{title} {100 * step // total}%", trained, skipped)
            if time.monotonic() - self.written > _SECONDS_BETWEEN_REPORTS:
                files.write_json(self.path, self.progress._asdict())
                self.written = time.monotonic()

        report(start, "")
        yield report
