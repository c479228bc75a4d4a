"""Runs a study: tunes and trains its arms, and writes its results.

study.json       metric, baseline, seeds, axes, tasks, and the labels and changes of each arm
config.json      the configuration of the base experiment
experiment.py    a copy of the study's file
provenance.json  a list: versions, devices, git revision and command of each start
results.parquet  every number; see `mmjax.study.results`
arms/ARM/        config.json, result.json, metrics-seedN.jsonl, checkpoints, tuning.json;
                 error.txt if the arm failed; with folds ARM,fold=0/ and so on
programs/        checkpoints of programs that are being trained
"""

import datetime
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from mmjax import config as configs
from mmjax.files.run_files import write_config_file
from mmjax.runs.prediction.prediction_files import write_test_predictions
from mmjax.study import write_results
from mmjax.study.arms import Arm, get_monitored_metric
from mmjax.study.live_display import StudyDisplay
from mmjax.study.packing import Unit
from mmjax.study.study_plan import StudyPlan
from mmjax.study.train_units import Trainer, train_units
from mmjax.study.tuning import tune_arms
from mmjax.train.evaluation import get_metric_directions
from mmjax.train.loop import TEN_MINUTES
from mmjax.train.run_arms import read_or_set_aside_result


def run_study(
    plan: StudyPlan,
    directory: Path,
    *,
    devices: Sequence[jax.Device] | None = None,
    max_replicas: int | None = None,
    memory: int | None = None,
    checkpoint_every: int | datetime.timedelta | None = TEN_MINUTES,
    predictions: bool = False,
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

    Returns:
      The names of the arms that failed.
    """
    homes = {name: directory / "arms" / name for name in plan.arms}
    units = {name: plan.unit(homes[name], arm.config) for name, arm in plan.arms.items()}
    completed = {name for name, home in homes.items() if read_or_set_aside_result(home) is not None}
    labels = {name: arm["labels"] for name, arm in plan.facts["arms"].items()}
    axes, folds = plan.facts["axes"], plan.study.folds

    with StudyDisplay(plan, homes) as display:

        def record_end(unit: Unit) -> None:
            display.refresh()
            if unit.home.parent == directory / "arms":  # not a trial
                write_results.write_results(directory, labels, axes, folds)

        trainer = Trainer(
            programs=directory / "programs",
            build=plan.build,
            module=plan.module,
            devices=devices,
            max_replicas=max_replicas,
            memory=memory,
            checkpoint_every=checkpoint_every,
            show=display.show,
            record_end=record_end,
        )
        waiting_homes = {name: homes[name] for name in plan.arms if name not in completed}
        units |= _tune_and_store_arms(plan, trainer, waiting_homes)
        train_units(trainer, list(units.values()), test=True)
    write_results.write_results(directory, labels, axes, folds)
    if predictions:
        for name, home in homes.items():
            # The tuned configuration of an arm that was completed earlier is not in the plan.
            is_known = name in waiting_homes or plan.study.tuning is None
            if is_known and (home / "result.json").exists():
                write_test_predictions(plan.build(units[name].config), home, units[name].seeds)
    if not any((directory / "programs").glob("*")):
        shutil.rmtree(directory / "programs", ignore_errors=True)
    return [name for name, home in homes.items() if not (home / "result.json").exists()]


def _tune_and_store_arms(
    plan: StudyPlan, trainer: Trainer, homes: Mapping[str, Path]
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
        configurations = tune_arms(trainer, plan.study.tuning, configurations, vmapped, metrics)
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
