"""Runs a study: tunes and trains its arms, and writes its results.

study.json       metric, baseline, seeds, axes, tasks, and the labels and changes of each arm
config.json      the configuration of the base experiment
experiment.py    a copy of the study's file
provenance.json  a list: versions, devices, git revision and command of each start
results.parquet  every number; see `mmjax.study.results`
arms/ARM/        config.json, result.json, metrics-seedN.jsonl, checkpoints, tuning.json;
                 error.txt if the arm failed; with folds ARM,fold=0/ and so on
programs/        checkpoints of programs that are being trained
jobs/            under a launcher: what its workers train and print; see `mmjax.study.launchers`
"""

import datetime
import functools
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import jax

from mmjax import config as configs
from mmjax.files.run_files import write_config_file
from mmjax.study import write_results
from mmjax.study.arms import Arm, get_monitored_metric
from mmjax.study.launchers import Launcher
from mmjax.study.launchers.jobs import WorkerSetup, write_unit_predictions
from mmjax.study.launchers.run_jobs import remove_jobs, run_jobs
from mmjax.study.live_display import StudyDisplay
from mmjax.study.packing import Unit
from mmjax.study.study_plan import StudyPlan
from mmjax.study.train_units import Trainer, train_units
from mmjax.study.tuning import tune_arms
from mmjax.train.evaluation import get_metric_directions
from mmjax.train.loop import TEN_MINUTES
from mmjax.train.run_arms import read_or_set_aside_result

TrainUnits = Callable[..., None]  # (units, *, test) -> None, as `train_units` with its trainer


def run_study(
    plan: StudyPlan,
    directory: Path,
    *,
    devices: Sequence[jax.Device] | None = None,
    max_replicas: int | None = None,
    memory: int | None = None,
    checkpoint_every: int | datetime.timedelta | None = TEN_MINUTES,
    predictions: bool = False,
    launcher: Launcher | None = None,
    target: str = "",
) -> list[str]:
    """Trains all arms that are not completed, and writes the results after each.

    Arms that failed earlier are tried again.

    Args:
      plan: the study.
      directory: the directory of the study, new or to be resumed.
      devices: the devices that train; None for those of `choose_devices`, per arm.
      max_replicas: largest number of replicas per program; None for as many as the memory holds.
      memory: bytes available on each device; None for what the device reports.
      checkpoint_every: steps or time between checkpoints; see `mmjax.fit`.
      predictions: whether to store predictions on the test split with every arm.
      launcher: starts a process per program, on the first `len(devices)` devices that it finds;
        its context has been entered. None trains in this process.
      target: the study's FILE_OR_MODULE[:STUDY], which the launcher's processes import.

    Returns:
      The names of the arms that failed.
    """
    homes = {name: directory / "arms" / name for name in plan.arms}
    units = {name: plan.unit(homes[name], arm.config) for name, arm in plan.arms.items()}
    waiting_homes = {n: h for n, h in homes.items() if read_or_set_aside_result(h) is None}
    results = _make_results_writer(plan, directory)
    with StudyDisplay(plan, homes) as display:
        trainer = Trainer(
            programs=directory / "programs",
            build=plan.build,
            module=plan.module,
            devices=devices,
            max_replicas=max_replicas,
            memory=memory,
            checkpoint_every=checkpoint_every,
            show=display.show,
            record_end=functools.partial(_record_end, directory / "arms", display, results),
        )
        if launcher is None:
            train: TrainUnits = functools.partial(train_units, trainer)
        else:
            setup = _make_worker_setup(plan, directory, trainer, target, predictions=predictions)
            train = functools.partial(run_jobs, launcher, setup, display, trainer)
        units |= _tune_and_store_arms(plan, train, waiting_homes)
        train(list(units.values()), test=True)
    results.write()
    if predictions:
        names = _list_unpredicted_arms(plan, waiting_homes, by_workers=launcher is not None)
        write_unit_predictions(plan.build, [units[name] for name in names])
    _remove_working_files(directory)
    return [name for name, home in homes.items() if not (home / "result.json").exists()]


def _list_unpredicted_arms(
    plan: StudyPlan, trained: Collection[str], *, by_workers: bool
) -> list[str]:
    """Lists the arms whose predictions this process has to store, given those trained just now."""
    # Workers have stored the predictions of what they trained.
    names = set(plan.arms) - set(trained) if by_workers else set(plan.arms)
    # The tuned configuration of an arm that was completed earlier is not in the plan.
    if plan.study.tuning is not None:
        names &= set(trained)
    return [name for name in plan.arms if name in names]


def _make_results_writer(plan: StudyPlan, directory: Path) -> write_results.ThrottledWriter:
    """Returns what writes `results.parquet` of the arms that are completed."""
    labels = {name: arm["labels"] for name, arm in plan.facts["arms"].items()}
    axes, folds = plan.facts["axes"], plan.study.folds
    return write_results.ThrottledWriter(
        functools.partial(write_results.write_results, directory, labels, axes, folds)
    )


def _record_end(
    arms: Path, display: StudyDisplay, results: write_results.ThrottledWriter, unit: Unit
) -> None:
    """Shows that a unit has ended, and writes the results if it is an arm's and not a trial's."""
    display.count_arms()
    if unit.home.parent == arms:
        results.write_if_due()


def _make_worker_setup(
    plan: StudyPlan, directory: Path, trainer: Trainer, target: str, *, predictions: bool
) -> WorkerSetup:
    """Returns what the workers of a launcher need to train as this process would."""
    cache = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    return WorkerSetup(
        directory=directory,
        working_directory=str(Path.cwd()),
        target=target,
        module=None if plan.module is None else plan.module.__name__,
        base=configs.dump_config(plan.base, plan.module),
        folds=plan.study.folds,
        devices=None if trainer.devices is None else len(trainer.devices),
        max_replicas=trainer.max_replicas,
        checkpoint_every=trainer.checkpoint_every,
        compilation_cache=cache and Path(cache),
        predictions=predictions,
    )


def _remove_working_files(directory: Path) -> None:
    """Removes what only training needs: files of jobs, and locks, unless programs are left."""
    remove_jobs(directory)
    if not any(path.is_dir() for path in (directory / "programs").glob("*")):
        shutil.rmtree(directory / "programs", ignore_errors=True)


def _tune_and_store_arms(
    plan: StudyPlan, train: TrainUnits, homes: Mapping[str, Path]
) -> dict[str, Unit]:
    """Tunes the arms {name: directory}, if the study asks for it, and writes their configurations.

    Returns {name: unit to be trained}.
    """
    configurations = {home: plan.arms[name].config for name, home in homes.items()}
    if plan.study.tuning is not None:
        metrics = {
            home: _choose_trial_metric(plan, plan.arms[name]) for name, home in homes.items()
        }
        vmapped = plan.study.vmapped
        train_trials = functools.partial(train, test=False)
        configurations = tune_arms(
            train_trials, plan.study.tuning, configurations, vmapped, metrics
        )
    units = {}
    for name, home in homes.items():
        units[name] = plan.unit(home, configurations[home])
        home.mkdir(parents=True, exist_ok=True)
        text = configs.dump_config(units[name].config, plan.module)
        write_config_file(home / "config.json", text)
    return units


def _choose_trial_metric(plan: StudyPlan, arm: Arm) -> tuple[str, str]:
    """Returns the metric that selects an arm's trial, and its direction.

    It is the study's metric, or what the arm monitors if it lacks that metric.
    """
    known = get_metric_directions(plan.build(arm.config).model)
    metric = plan.facts["metric"]
    metric = metric if metric in known else get_monitored_metric(arm.config)
    return metric, known[metric]
