"""Runs a study: what it asks for, its directory, its arms.

study.json       metric, baseline, seeds, axes, tasks, and each arm's labels and changes
config.json      the base experiment's configuration
experiment.py    the study's file, as it was
provenance.json  a list: versions, devices, git revision and command of each start
results.parquet  every number; see `mmjax.study.results`
arms/ARM/        config.json, result.json, metrics-seedN.jsonl, checkpoints, tuning.json;
                 error.txt where the arm failed
programs/        checkpoints of programs that are being trained
"""

import dataclasses
import datetime
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import fiddle as fdl
import jax

from mmjax import config as configs
from mmjax.config import ConfigError
from mmjax.provenance import digest_data
from mmjax.runs.run_files import write_config
from mmjax.study import arms as make
from mmjax.study import write_results
from mmjax.study.arms import Arm
from mmjax.study.live_display import Display
from mmjax.study.packing import (
    Build,
    Lane,
    Unit,
    builder,
    check_vmapped,
    grouped,
    numbers_of,
    sweep,
)
from mmjax.study.study import Study
from mmjax.study.train_units import Trainer, train
from mmjax.study.tuning import check_space, tune
from mmjax.train.devices import choose_devices
from mmjax.train.evaluation import directions
from mmjax.train.experiment_check import check as check_experiment
from mmjax.train.loop import TEN_MINUTES
from mmjax.train.programs import Programs
from mmjax.train.run_arms import read_or_set_aside


class Plan(NamedTuple):
    """A study with all that follows from it.

    Attributes:
      name: of the study.
      study: the study.
      base: its base experiment's configuration.
      arms: {name: arm}.
      facts: what `study.json` holds.
      build: makes experiments of configurations.
      own: the module of the base experiment's file.
    """

    name: str
    study: Study
    base: fdl.Buildable
    arms: dict[str, Arm]
    facts: dict[str, Any]
    build: Build
    own: ModuleType | None

    def unit(self, home: Path, config: fdl.Buildable) -> Unit:
        """An arm's configuration, to be trained."""
        seeds = tuple(self.study.seeds)
        return Unit(home, config, seeds, numbers_of(config, self.study.vmapped))

    def groups(self) -> list[list[Lane]]:
        """The lanes of each program, if every arm is trained as it stands and memory suffices."""
        units = [self.unit(Path(name), arm.config) for name, arm in self.arms.items()]
        return grouped(units, self.own)


def make_plan(
    name: str, study: Study, settings: Sequence[str] = (), own: ModuleType | None = None
) -> Plan:
    """Makes the arms of a study.

    Args:
      name: of the study.
      study: the study.
      settings: PATH=VALUE, applied to the base experiment before all else.
      own: the module of the base experiment's file.

    Raises:
      ConfigError: whatever is wrong with the study, before anything runs.
    """
    base = study.base.as_buildable()
    for setting in settings:
        base = configs.apply(base, setting)
    seeds = list(study.seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"the study's seeds are {seeds}; give it one or more that differ.")
    arms = make.make_arms(study, base)
    build = builder(base)
    experiment = build(base)
    model, data = experiment.model, experiment.data
    every = directions(model)
    known = {m: d for m, d in every.items() if "/" in m}
    metric, direction = make.primary_metric(study, base, every)
    check_vmapped(study.vmapped, [configs.flatten(arm.config) for arm in arms.values()])
    if study.tuning is not None:
        check_space(study.tuning, [arm.config for arm in arms.values()])
        if both := sorted(set(seeds) & set(study.tuning.seeds)):
            raise ConfigError(
                f"the seeds {both} are the tuning's and the report's; the report needs fresh ones."
            )
    facts = {
        "name": name,
        "metric": metric,
        "direction": direction,
        "directions": known,
        "baseline": make.baseline_name(study, arms),
        "seeds": seeds,
        "axes": list(study.axes),
        "tasks": sorted(model.heads),
        "arms": {
            arm: {"labels": a.labels, "role": a.role, "of": a.of, "changes": a.changes}
            for arm, a in arms.items()
        },
        "tuning": None if study.tuning is None else told(study.tuning),
        "base": {
            "data": data.name,
            "examples": {split: len(source) for split, source in data.splits.items()},
            "epochs": experiment.epochs,
            "batch_size": experiment.batch_size,
        },
    }
    return Plan(name, study, base, arms, facts, build, own)


def told(tuning: Any) -> dict[str, Any]:
    """A search as JSON has it."""
    facts = dataclasses.asdict(tuning)
    space = {p: [type(d).__name__, *d] for p, d in tuning.space.items()}
    return json.loads(json.dumps(facts | {"space": space}))  # type: ignore[no-any-return]


def check(
    plan: Plan, devices: Sequence[jax.Device] | None
) -> tuple[dict[str, int], dict[str, str]]:
    """Builds every arm and checks every program, before anything is compiled.

    Returns:
      {arm: number of devices that will train it}, and `provenance.digest_data` of all arms.

    Raises:
      ConfigError: naming the arm that does not fit.
    """
    base = plan.build(plan.base).data
    used, data = {}, digest_data({"": base})
    for name, arm in plan.arms.items():
        try:
            experiment = plan.build(arm.config)
            used[name] = len(devices or choose_devices(experiment))
            check_experiment(experiment, used[name])
            if experiment.data is not base:
                own = digest_data({name: experiment.data})
                data |= {f"{name}/{split}": digest for split, digest in own.items()}
        except ValueError as error:
            raise ConfigError(f"arm {name}: {error}") from error
    for lanes in plan.groups():
        if lanes[0].unit.numbers:
            experiment = plan.build(lanes[0].unit.config)
            seeds = [lane.seed for lane in lanes]
            Programs(experiment, seeds, devices, sweep(lanes, experiment), checked=True)
    return used, data


def run(
    plan: Plan,
    directory: Path,
    *,
    devices: Sequence[jax.Device] | None = None,
    most: int | None = None,
    limit: int | None = None,
    checkpoint_every: int | datetime.timedelta | None = TEN_MINUTES,
) -> list[str]:
    """Trains all arms that are not done yet, and writes the results after each.

    An arm that failed earlier is tried again.

    Args:
      plan: the study.
      directory: where it goes, or goes on.
      devices: by default those that `mmjax.train.devices.choose_devices` says, arm by arm.
      most: most lanes a program.
      limit: bytes that a device can give; by default what it has.
      checkpoint_every: steps or time between checkpoints; see `mmjax.train.loop.fit`.

    Returns:
      The arms that failed.
    """
    homes = {name: directory / "arms" / name for name in plan.arms}
    units = {name: plan.unit(homes[name], arm.config) for name, arm in plan.arms.items()}
    done = {name for name, home in homes.items() if read_or_set_aside(home) is not None}
    labels = {name: arm.labels for name, arm in plan.arms.items()}
    tuning = plan.study.tuning

    with Display(plan, homes) as display:

        def ended(unit: Unit) -> None:
            display.refresh()
            if unit.home.parent == directory / "arms":
                write_results.write(directory, labels, plan.facts["axes"])

        trainer = Trainer(
            programs=directory / "programs",
            build=plan.build,
            own=plan.own,
            devices=devices,
            most=most,
            memory=limit,
            checkpoint_every=checkpoint_every,
            show=display.show,
            ended=ended,
        )
        if tuning is not None:
            waiting = {homes[n]: arm.config for n, arm in plan.arms.items() if n not in done}
            judge = {homes[n]: judged_by(plan, arm) for n, arm in plan.arms.items()}
            tuned = tune(trainer, tuning, waiting, plan.study.vmapped, judge)
            for name in plan.arms:
                if name not in done:
                    units[name] = plan.unit(homes[name], tuned[homes[name]])
        for name in plan.arms:
            if name not in done:
                homes[name].mkdir(parents=True, exist_ok=True)
                text = configs.dump(units[name].config, plan.own)
                write_config(homes[name] / "config.json", text)
        train(trainer, list(units.values()), test=True)
    write_results.write(directory, labels, plan.facts["axes"])
    if not any((directory / "programs").glob("*")):
        shutil.rmtree(directory / "programs", ignore_errors=True)
    return [name for name, home in homes.items() if not (home / "result.json").exists()]


def judged_by(plan: Plan, arm: Arm) -> tuple[str, str]:
    """The metric that judges an arm's trials: the study's, or its own where it lacks that."""
    own = directions(plan.build(arm.config).model)
    metric = plan.facts["metric"]
    metric = metric if metric in own else make.monitor(arm.config)
    return metric, own[metric]
