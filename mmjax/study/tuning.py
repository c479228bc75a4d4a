"""The search for good values: the same number of trials for every arm, judged on validation."""

import functools
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fiddle as fdl
import numpy as np

from mmjax import config as configs
from mmjax import files
from mmjax.config import ConfigError, public_names
from mmjax.study.packing import Unit, numbers_of
from mmjax.study.search_space import Choice, Distribution, draw, to_optuna
from mmjax.study.study import Tuning
from mmjax.study.train_units import Trainer, train


class TuningError(RuntimeError):
    """No trial of an arm came to an end."""


def check_space(tuning: Tuning, configurations: Sequence[fdl.Buildable]) -> None:
    """Refuses a path that no arm has, or a value that it does not take.

    Raises:
      ConfigError: naming it.
    """
    for path, distribution in tuning.space.items():
        having = [c for c in configurations if path in configs.flatten(c)]
        if not having:
            known = sorted({row for c in configurations for row in configs.flatten(c)})
            near = public_names.did_you_mean(path, known)
            raise ConfigError(f"the tuning's space names {path}, which no arm has.{near}")
        values = distribution.values if isinstance(distribution, Choice) else distribution
        for value in values:
            configs.apply(having[0], f"{path}={value}")


def space_of(tuning: Tuning, config: fdl.Buildable) -> dict[str, Distribution]:
    """The paths of the space that a configuration has."""
    rows = configs.flatten(config)
    return {path: d for path, d in tuning.space.items() if path in rows}


def tune(
    trainer: Trainer,
    tuning: Tuning,
    homes: Mapping[Path, fdl.Buildable],
    vmapped: Sequence[str],
    judge: Mapping[Path, tuple[str, str]],
) -> dict[Path, fdl.Buildable]:
    """The configuration of every arm with its best trial's values; `tuning.json` tells of all.

    Args:
      trainer: trains the trials.
      tuning: the search.
      homes: {directory of an arm: its configuration}.
      vmapped: paths whose numbers may differ within a program.
      judge: {directory of an arm: the metric that judges its trials, "max" or "min"}.
    """
    make = functools.partial(trial_unit, tuning=tuning, vmapped=vmapped)
    for number in range(tuning.trials) if tuning.sampler != "random" else ():
        units = []
        for home, config in homes.items():
            told = [read_trial(home, i, judge[home]) for i in range(number)]
            values = suggest(tuning, space_of(tuning, config), number, told, judge[home][1])
            units.append(make(home, config, number, values))
        train(trainer, units, test=False)
    if tuning.sampler == "random":
        units = [
            make(home, config, number, random_values(tuning, config, number))
            for home, config in homes.items()
            for number in range(tuning.trials)
        ]
        train(trainer, units, test=False)
    return {home: choose(home, config, tuning, judge[home]) for home, config in homes.items()}


def trial_home(home: Path, number: int) -> Path:
    """The directory of an arm's trial."""
    return home / "trials" / f"{home.name}-trial{number}"


def trial_unit(
    home: Path,
    config: fdl.Buildable,
    number: int,
    values: Mapping[str, str],
    *,
    tuning: Tuning,
    vmapped: Sequence[str],
) -> Unit:
    """A trial, with its values written down."""
    for path, value in values.items():
        config = configs.apply(config, f"{path}={value}")
    directory = trial_home(home, number)
    directory.mkdir(parents=True, exist_ok=True)
    files.write_json(directory / "values.json", values)
    return Unit(directory, config, tuple(tuning.seeds), numbers_of(config, vmapped))


def random_values(tuning: Tuning, config: fdl.Buildable, number: int) -> dict[str, str]:
    """A trial's values; the same for every arm, path by path."""
    return {
        path: draw(d, np.random.default_rng([tuning.seed, number, zlib.crc32(path.encode())]))
        for path, d in space_of(tuning, config).items()
    }


def suggest(
    tuning: Tuning,
    space: Mapping[str, Distribution],
    number: int,
    told: Sequence[Mapping[str, Any]],
    direction: str,
) -> dict[str, str]:
    """What Optuna's sampler tries next, from the trials before; the same whenever it is asked."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers: Any = optuna.samplers
    kinds = {"tpe": samplers.TPESampler, "cmaes": samplers.CmaEsSampler, "gp": samplers.GPSampler}
    distributions = to_optuna(space)
    study = optuna.create_study(
        direction="maximize" if direction == "max" else "minimize",
        sampler=kinds[tuning.sampler](seed=1000 * tuning.seed + number),
    )
    for trial in told:
        params = {
            path: value if isinstance(space[path], Choice) else float(value)
            for path, value in trial["values"].items()
        }
        states = optuna.trial.TrialState
        state = states.FAIL if trial["value"] is None else states.COMPLETE
        create = optuna.trial.create_trial
        study.add_trial(
            create(params=params, distributions=distributions, value=trial["value"], state=state)
        )
    asked = study.ask(distributions)
    return {path: str(value) for path, value in asked.params.items()}


def read_trial(home: Path, number: int, judge: tuple[str, str]) -> dict[str, Any]:
    """A trial that has ended: its values, and its mean over seeds; None where it failed."""
    directory = trial_home(home, number)
    values = files.read_json(directory / "values.json")
    value, path = None, directory / "result.json"
    if path.exists():
        result = files.read_json(path)
        with files.naming_damage(path):
            scores = [one["validation"][judge[0]] for one in result["seeds"].values()]
            value = float(np.mean(scores))
    return {"values": values, "value": None if value is None or np.isnan(value) else value}


def choose(
    home: Path, config: fdl.Buildable, tuning: Tuning, judge: tuple[str, str]
) -> fdl.Buildable:
    """The configuration with the values of the best trial, if one came to an end."""
    metric, direction = judge
    trials = [read_trial(home, i, judge) for i in range(tuning.trials)]
    ended = [trial for trial in trials if trial["value"] is not None]
    sign = 1 if direction == "max" else -1
    best = max(ended, key=lambda trial: sign * trial["value"], default=None)
    chosen = None if best is None else best["values"]
    files.write_json(
        home / "tuning.json",
        {"metric": metric, "direction": direction, "trials": trials, "chosen": chosen},
    )
    for path, value in (chosen or {}).items():
        config = configs.apply(config, f"{path}={value}")
    return config
