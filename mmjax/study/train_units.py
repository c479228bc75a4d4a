"""Trains units in as few programs as memory permits, in `programs/`; each unit has its results."""

import datetime
import functools
import itertools
import shutil
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax

from mmjax import files
from mmjax.data.spec import write_spec
from mmjax.files.disk_space import DiskFullError
from mmjax.printing.console import print_text
from mmjax.study.packing import (
    ExperimentBuilder,
    StudyReplica,
    Unit,
    group_replicas,
    list_seeds,
    make_sweep,
    split_replicas,
)
from mmjax.study.unit_results import TrainedReplica, merge_results, save_states
from mmjax.train.hardware import device_memory
from mmjax.train.hardware.devices import choose_devices
from mmjax.train.loop import fit
from mmjax.train.reporting.class_report import write_class_reports
from mmjax.train.run_arms import make_arm_result, read_or_set_aside_result


class Trainer(NamedTuple):
    """Settings for training units.

    Attributes:
      programs: the directory of the programs' checkpoints during training.
      build: builds experiments from configurations.
      module: the module of the base experiment's file.
      devices: the devices that train; None leaves the choice to `choose_devices`.
      max_replicas: largest number of replicas per program; None for as many as the memory holds.
      memory: bytes available on each device; None for what the device reports.
      checkpoint_every: steps or time between checkpoints; see `mmjax.fit`.
      show: shows the progress of a program.
      record_end: called with each unit that is completed or has failed.
    """

    programs: Path
    build: ExperimentBuilder
    module: ModuleType | None
    devices: Sequence[jax.Device] | None
    max_replicas: int | None
    memory: int | None
    checkpoint_every: int | datetime.timedelta | None
    show: Callable[..., AbstractContextManager[Any]]
    record_end: Callable[[Unit], None]


def train_units(trainer: Trainer, units: Sequence[Unit], *, test: bool) -> None:
    """Trains all units that have no result yet; a failure is recorded and the others continue.

    Afterwards every unit's home has a `result.json`, or an `error.txt` with the traceback.

    Args:
      trainer: the settings.
      units: the units.
      test: whether the test split is evaluated.

    Raises:
      DiskFullError: nothing more can be recorded.
    """
    for replicas in _group_waiting_replicas(trainer, units):
        name = replicas[0].unit.home.name
        # A worker of an earlier start may still run, if its coordinator was killed.
        with files.lock_file(trainer.programs / f"{name}.lock", waiting=f"it trains {name}"):
            _train_waiting(trainer, replicas, test=test)


def list_waiting_groups(trainer: Trainer, units: Sequence[Unit]) -> list[list[Unit]]:
    """Returns the units of each group that share their programs, if one of them has no result."""
    return [_unique_units(replicas) for replicas in _group_waiting_replicas(trainer, units)]


def _group_waiting_replicas(trainer: Trainer, units: Sequence[Unit]) -> list[list[StudyReplica]]:
    """Returns the replicas of each group that share their programs, if one of them waits."""
    for unit in units:
        unit.home.mkdir(parents=True, exist_ok=True)
        read_or_set_aside_result(unit.home)  # a damaged result is set aside and trained again
    return list(filter(_list_waiting, group_replicas(units, trainer.module)))


def _list_waiting(replicas: Sequence[StudyReplica]) -> list[StudyReplica]:
    """Lists the replicas whose units have no result yet."""
    return [replica for replica in replicas if not has_result(replica.unit)]


def _train_waiting(trainer: Trainer, replicas: list[StudyReplica], *, test: bool) -> None:
    """Trains the units of a group that have no result yet, or records why they fail."""
    waiting = _list_waiting(replicas)
    units = _unique_units(waiting)
    if not waiting:
        return
    # A program that an earlier start began continues with the same replicas.
    if not _get_group_directory(trainer, replicas).exists():
        replicas = waiting
    directory = _get_group_directory(trainer, replicas)
    for unit in units:
        (unit.home / "error.txt").unlink(missing_ok=True)
    try:
        _train_group(trainer, replicas, directory, test=test)
        shutil.rmtree(directory, ignore_errors=True)
    except DiskFullError:
        raise
    except Exception as error:
        for unit in units:
            if not has_result(unit):
                record_failure(trainer, unit, error)


def _get_group_directory(trainer: Trainer, replicas: Sequence[StudyReplica]) -> Path:
    """Returns the directory of the programs that train these replicas."""
    # "lanes" is the old word for replicas; directories of interrupted studies have it.
    return trainer.programs / f"{replicas[0].unit.home.name}-{len(replicas)}-lanes"


def has_result(unit: Unit) -> bool:
    """Checks whether a unit has its result."""
    return (unit.home / "result.json").exists()


def _train_group(
    trainer: Trainer, replicas: Sequence[StudyReplica], directory: Path, *, test: bool
) -> None:
    """Trains replicas that can share a program, in several programs if memory is short.

    Args:
      trainer: the settings.
      replicas: the replicas.
      directory: where the programs' checkpoints go.
      test: whether the test split is evaluated.
    """
    waiting = split_replicas(replicas, trainer.max_replicas)
    trained: dict[tuple[Path, int], TrainedReplica] = {}
    while waiting:
        chunk = waiting.pop(0)
        if not _list_waiting(chunk):
            continue
        first = chunk[0]
        workdir = directory / f"{first.unit.home.name}-seed{first.seed}-{len(chunk)}-lanes"
        experiment = trainer.build(first.unit.config)
        devices = trainer.devices or choose_devices(experiment)
        limit = trainer.memory
        if limit is None:
            limit = device_memory.get_usable_memory(devices)
        try:
            fitted = fit(
                experiment,
                workdir,
                seeds=list_seeds(chunk),
                devices=devices,
                sweep=make_sweep(chunk, experiment),
                title=first.unit.home.name,
                homes=[replica.unit.home for replica in chunk],
                test=test,
                memory=limit,
                checkpoint_every=trainer.checkpoint_every,
                show=functools.partial(trainer.show, replicas=len(chunk)),
                allow_changes=True,  # the study has compared the weights of all its units
            )
        except device_memory.MemoryShortError as error:
            if len(chunk) == 1:
                raise  # no smaller program exists
            half = -(-len(chunk) // 2)
            print_text(f"{error.shortage} Its replicas train in programs of {half} at most.")
            shutil.rmtree(workdir, ignore_errors=True)
            waiting = split_replicas(list(itertools.chain(chunk, *waiting)), half)
            continue
        for index, (unit, seed) in enumerate(chunk):
            trained[unit.home, seed] = TrainedReplica(fitted, index)
        # The seeds of a unit may be spread over several programs; the last one completes it.
        for unit in _unique_units(chunk):
            keys = [(unit.home, seed) for seed in unit.seeds]
            if trained.keys() >= set(keys) and not has_result(unit):
                _finish_unit(trainer, unit, [trained[key] for key in keys], test=test)


def _unique_units(replicas: Sequence[StudyReplica]) -> list[Unit]:
    """Returns the units of some replicas, each once."""
    return list({replica.unit.home: replica.unit for replica in replicas}.values())


def _finish_unit(
    trainer: Trainer, unit: Unit, pieces: Sequence[TrainedReplica], *, test: bool
) -> None:
    """Writes the result, or the failure, of a unit whose replicas have all ended."""
    for fitted, position in pieces:
        if position in fitted.failed:
            return record_failure(trainer, unit, fitted.failed[position])
    experiment = trainer.build(unit.config)
    parts = [
        make_arm_result(experiment, fitted, [seed], [position])
        for (fitted, position), seed in zip(pieces, unit.seeds, strict=True)
    ]
    if test:
        save_states(unit.home / "checkpoints", pieces)
        model = experiment.model
        write_spec(unit.home, experiment.data, model.heads, model.encoders)
        classes = [p.fitted.test_classes[p.position] for p in pieces]
        write_class_reports(unit.home / "test", experiment.data.tasks, classes)
    files.write_json(unit.home / "result.json", merge_results(parts))
    trainer.record_end(unit)


def record_failure(trainer: Trainer, unit: Unit, error: Exception) -> None:
    """Records why a unit has no result."""
    text = "".join(traceback.format_exception(error))
    files.write_text(unit.home / "error.txt", text)
    trainer.record_end(unit)
