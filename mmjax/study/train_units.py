"""Trains units in as few programs as memory permits, in `programs/`; each unit has its results."""

import datetime
import functools
import shutil
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmjax import files
from mmjax.data.spec import write_spec
from mmjax.files.disk_space import DiskFullError
from mmjax.printing.console import print_text
from mmjax.study.packing import (
    ExperimentBuilder,
    StudyReplica,
    Unit,
    group_replicas,
    make_sweep,
    split_replicas,
)
from mmjax.train.checkpoint import Checkpoints
from mmjax.train.fit_result import FitResult
from mmjax.train.hardware import device_memory
from mmjax.train.hardware.devices import choose_devices
from mmjax.train.loop import fit
from mmjax.train.reporting.class_report import write_class_reports
from mmjax.train.run_arms import ArmResult, make_arm_result, read_or_set_aside_result


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


class _TrainedReplica(NamedTuple):
    """Trained replica: the results of its program, and its position there."""

    fitted: FitResult
    position: int


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
    groups = group_replicas(units, trainer.module)
    return [g for g in groups if not all(has_result(replica.unit) for replica in g)]


def _train_waiting(trainer: Trainer, replicas: list[StudyReplica], *, test: bool) -> None:
    """Trains the units of a group that have no result yet, or records why they fail."""
    waiting = [unit for unit in _unique_units(replicas) if not has_result(unit)]
    if not waiting:
        return
    # A program that an earlier start began continues with the same replicas.
    if not _get_group_directory(trainer, replicas).exists():
        replicas = [replica for replica in replicas if not has_result(replica.unit)]
    directory = _get_group_directory(trainer, replicas)
    for unit in waiting:
        (unit.home / "error.txt").unlink(missing_ok=True)
    try:
        _train_group(trainer, replicas, directory, test=test)
        shutil.rmtree(directory, ignore_errors=True)
    except DiskFullError:
        raise
    except Exception as error:
        for unit in waiting:
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
    trained: dict[tuple[Path, int], _TrainedReplica] = {}
    while waiting:
        chunk = waiting.pop(0)
        if all(has_result(replica.unit) for replica in chunk):
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
                seeds=[replica.seed for replica in chunk],
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
                raise
            half = -(-len(chunk) // 2)
            print_text(f"{error.shortage} Its replicas train in programs of {half} at most.")
            shutil.rmtree(workdir, ignore_errors=True)
            waiting = split_replicas(
                [*chunk, *(replica for rest in waiting for replica in rest)], half
            )
            continue
        for index, replica in enumerate(chunk):
            trained[_get_replica_key(replica)] = _TrainedReplica(fitted, index)
        for unit in _unique_units(chunk):
            keys = [_get_replica_key(StudyReplica(unit, seed)) for seed in unit.seeds]
            if all(key in trained for key in keys) and not has_result(unit):
                _finish_unit(trainer, unit, [trained[key] for key in keys], test=test)


def _get_replica_key(replica: StudyReplica) -> tuple[Path, int]:
    """Returns a hashable key that identifies a replica."""
    return replica.unit.home, replica.seed


def _unique_units(replicas: Sequence[StudyReplica]) -> list[Unit]:
    """Returns the units of some replicas, each once."""
    return list({replica.unit.home: replica.unit for replica in replicas}.values())


def _finish_unit(
    trainer: Trainer, unit: Unit, pieces: Sequence[_TrainedReplica], *, test: bool
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
        # The checkpoint of a unit has the layout of a run's: its replicas on one device.
        states = [jax.tree.map(lambda x, i=p.position: x[i], p.fitted.state) for p in pieces]
        states = [jax.device_put(state, jax.devices()[0]) for state in states]
        checkpoints = Checkpoints(unit.home / "checkpoints")
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
        checkpoints.save(max(p.fitted.state.steps_done for p in pieces), stacked)
        checkpoints.close()
        model = experiment.model
        write_spec(unit.home, experiment.data, model.heads, model.encoders)
        classes = [p.fitted.test_classes[p.position] for p in pieces]
        write_class_reports(unit.home / "test", experiment.data.tasks, classes)
    files.write_json(unit.home / "result.json", _merge_results(parts))
    trainer.record_end(unit)


def _merge_results(parts: Sequence[ArmResult]) -> ArmResult:
    """Merges the results of a unit's seeds.

    Seconds and throughput add up over the seeds; other costs are averaged.
    """
    costs = [part["cost"] for part in parts]
    means = {name: sum(c[name] for c in costs) / len(costs) for name in costs[0]}
    sums = {name: sum(c[name] for c in costs) for name in ("seconds", "examples_per_second")}
    seeds = {seed: values for part in parts for seed, values in part["seeds"].items()}
    return {**parts[0], "seeds": seeds, "cost": means | sums}


def record_failure(trainer: Trainer, unit: Unit, error: Exception) -> None:
    """Records why a unit has no result."""
    text = "".join(traceback.format_exception(error))
    files.write_text(unit.home / "error.txt", text)
    trainer.record_end(unit)
