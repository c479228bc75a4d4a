"""Plans studies: their arms, units and programs, checked before anything is trained."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import fiddle as fdl
import jax

from mmjax import config as configs
from mmjax.config import ConfigError
from mmjax.provenance import digest_data, digest_weights
from mmjax.study.arms import Arm, choose_primary_metric, find_baseline, make_study_arms
from mmjax.study.folds import make_fold_arms, set_fold
from mmjax.study.packing import (
    ExperimentBuilder,
    StudyReplica,
    Unit,
    check_vmapped,
    get_vmapped_numbers,
    group_replicas,
    list_seeds,
    make_builder,
    make_sweep,
)
from mmjax.study.study import Study, Tuning
from mmjax.study.tuning import check_search_space
from mmjax.train.checks.experiment_check import check_experiment
from mmjax.train.evaluation import get_metric_directions
from mmjax.train.hardware.devices import choose_devices
from mmjax.train.programs import Programs


class StudyPlan(NamedTuple):
    """Study with everything that follows from it.

    Attributes:
      name: the name of the study.
      study: the study.
      base: the configuration of its base experiment.
      arms: {name: arm} of what is trained; with folds, one per fold of each arm.
      facts: the content of `study.json`.
      build: builds experiments from configurations.
      module: the module of the base experiment's file.
    """

    name: str
    study: Study
    base: fdl.Buildable
    arms: dict[str, Arm]
    facts: dict[str, Any]
    build: ExperimentBuilder
    module: ModuleType | None

    def unit(self, home: Path, config: fdl.Buildable) -> Unit:
        """Returns the unit that trains a configuration with the study's seeds."""
        seeds = tuple(self.study.seeds)
        return Unit(home, config, seeds, get_vmapped_numbers(config, self.study.vmapped))

    def groups(self) -> list[list[StudyReplica]]:
        """Returns the replicas of each program, before tuning and without a limit of memory."""
        units = [self.unit(Path(name), arm.config) for name, arm in self.arms.items()]
        return group_replicas(units, self.module)


def make_study_plan(
    name: str, study: Study, settings: Sequence[str] = (), module: ModuleType | None = None
) -> StudyPlan:
    """Makes the arms of a study and checks its metric, seeds, numbers and search space.

    Args:
      name: the name of the study.
      study: the study.
      settings: PATH=VALUE, applied to the base experiment first.
      module: the module of the base experiment's file.

    Raises:
      ConfigError: the study is invalid.
    """
    base = study.base.as_buildable()
    for setting in settings:
        base = configs.apply_setting(base, setting)
    _check_seeds_and_folds(study)
    if study.folds:
        base = set_fold(base, study.folds, 0)
    arms = make_study_arms(study, base)
    build = make_builder(base, study.folds)
    experiment = build(base)
    model, data = experiment.model, experiment.data
    known = get_metric_directions(model)
    metric, direction = choose_primary_metric(study, base, known)
    configurations = [arm.config for arm in arms.values()]
    check_vmapped(study.vmapped, list(map(configs.flatten_config, configurations)))
    if study.tuning is not None:
        check_search_space(study.tuning, configurations)
    facts = {
        "name": name,
        "metric": metric,
        "direction": direction,
        "directions": {m: way for m, way in known.items() if "/" in m},
        "baseline": find_baseline(study, arms),
        "seeds": list(study.seeds),
        "folds": study.folds,
        "axes": list(study.axes),
        "tasks": sorted(model.heads),
        "arms": {
            arm: {"labels": a.labels, "role": a.role, "of": a.of, "changes": a.changes}
            for arm, a in arms.items()
        },
        "tuning": None if study.tuning is None else _tuning_to_json(study.tuning),
        "base": {
            "data": data.name,
            "examples": dict(zip(data.splits, map(len, data.splits.values()), strict=True)),
            "epochs": experiment.epochs,
            "batch_size": experiment.batch_size,
        },
    }
    trained = make_fold_arms(arms, study.folds) if study.folds else arms
    return StudyPlan(name, study, base, trained, facts, build, module)


def _check_seeds_and_folds(study: Study) -> None:
    """Refuses repeated seeds, those of the tuning, and a single fold."""
    seeds = list(study.seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"the study's seeds are {seeds}; give one or more distinct seeds.")
    if study.folds < 0 or study.folds == 1:
        raise ConfigError(f"the study has folds={study.folds}; give at least 2, or 0 for none.")
    tuned = () if study.tuning is None else study.tuning.seeds
    if shared := sorted(set(seeds) & set(tuned)):
        raise ConfigError(
            f"the seeds {shared} are seeds of both the study and its tuning; the report needs "
            "seeds that the tuning has not seen."
        )


def _tuning_to_json(tuning: Tuning) -> dict[str, Any]:
    """Converts a search to what JSON can hold."""
    facts = dataclasses.asdict(tuning)
    if tuning.parallel == 1:
        del facts["parallel"]  # which the plans of older versions lack
    space = {p: [type(d).__name__, *d] for p, d in tuning.space.items()}
    return json.loads(json.dumps(facts | {"space": space}))  # type: ignore[no-any-return]


def check_plan(
    plan: StudyPlan, devices: Sequence[jax.Device] | None
) -> tuple[dict[str, int], dict[str, str], dict[str, str]]:
    """Builds every arm and checks every program, before anything is compiled.

    Returns:
      {arm: number of devices that will train it}, and `provenance.digest_data` and
      `provenance.digest_weights` of all arms.

    Raises:
      ConfigError: an arm is invalid; the message names it.
    """
    base = plan.build(plan.base).data
    device_counts, data, weights, last = {}, digest_data({"": base}), {}, base
    for name, arm in plan.arms.items():
        try:
            experiment = plan.build(arm.config)
            device_counts[name] = len(devices or choose_devices(experiment))
            check_experiment(experiment, device_counts[name])
            weights[name] = experiment.init
            if experiment.data is not base and experiment.data is not last:
                digests = digest_data({name: experiment.data})
                data |= {f"{name}/{split}": digest for split, digest in digests.items()}
                last = experiment.data  # the arms of a fold share it
        except ValueError as error:
            raise ConfigError(f"arm {name}: {error}") from error
    for replicas in plan.groups():
        if replicas[0].unit.numbers:
            # Making the program checks that its numbers can be traced.
            experiment = plan.build(replicas[0].unit.config)
            sweep = make_sweep(replicas, experiment)
            Programs(experiment, list_seeds(replicas), devices, sweep, checked=True)
    return device_counts, data, digest_weights(weights)
