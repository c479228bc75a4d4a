"""Hyperparameter search: the same number of trials for every arm, selected on validation data."""

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fiddle as fdl
import numpy as np

from mmjax import config as configs
from mmjax import files
from mmjax.config import ConfigError, public_names
from mmjax.study.packing import Unit, get_vmapped_numbers
from mmjax.study.search_space import Choice, Distribution, draw_value, make_optuna_distributions
from mmjax.study.study import Tuning


def check_search_space(tuning: Tuning, configurations: Sequence[fdl.Buildable]) -> None:
    """Checks that some arm has each path of the search space and takes its values.

    Raises:
      ConfigError: a path is unknown, or a value is invalid.
    """
    for path, distribution in tuning.space.items():
        having = [c for c in configurations if path in configs.flatten_config(c)]
        if not having:
            known = sorted({row for c in configurations for row in configs.flatten_config(c)})
            near = public_names.did_you_mean(path, known)
            raise ConfigError(f"the tuning's space names {path}, which no arm has.{near}")
        values = distribution.values if isinstance(distribution, Choice) else distribution
        for value in values:
            configs.apply_setting(having[0], f"{path}={value}")


def _select_space(tuning: Tuning, config: fdl.Buildable) -> dict[str, Distribution]:
    """Returns the part of the search space that applies to a configuration."""
    rows = configs.flatten_config(config)
    return {path: d for path, d in tuning.space.items() if path in rows}


def tune_arms(
    train: Callable[[Sequence[Unit]], None],
    tuning: Tuning,
    homes: Mapping[Path, fdl.Buildable],
    vmapped: Sequence[str],
    metrics: Mapping[Path, tuple[str, str]],
) -> dict[Path, fdl.Buildable]:
    """Returns every arm's configuration with the values of its best trial; writes `tuning.json`.

    Args:
      train: trains units, which have a result or an error afterwards.
      tuning: the search.
      homes: {directory of an arm: its configuration}.
      vmapped: paths whose numbers may differ within a program.
      metrics: {directory of an arm: the metric that selects its trial, "max" or "min"}.
    """
    make_unit = functools.partial(_make_trial, tuning=tuning, vmapped=vmapped)
    if tuning.sampler == "random":
        units = []
        for home, config in homes.items():
            for number in range(tuning.trials):
                values = _draw_values(tuning, config, number)
                units.append(make_unit(home, config, number, values))
        train(units)
    else:  # in rounds, because each sampler uses the results of earlier trials
        for start in range(0, tuning.trials, tuning.parallel):
            units = []
            for home, config in homes.items():
                earlier = [_read_trial(home, i, metrics[home]) for i in range(start)]
                space = _select_space(tuning, config)
                values_of_round: list[dict[str, str]] = []
                for number in range(start, min(start + tuning.parallel, tuning.trials)):
                    values = suggest_values(
                        tuning, space, number, earlier, metrics[home][1], values_of_round
                    )
                    values_of_round.append(values)
                    units.append(make_unit(home, config, number, values))
            train(units)
    chosen = {}
    for home, config in homes.items():
        chosen[home] = choose_best_trial(home, config, tuning, metrics[home])
    return chosen


def get_trial_directory(home: Path, number: int) -> Path:
    """Returns the directory of an arm's trial."""
    return home / "trials" / f"{home.name}-trial{number}"


def _make_trial(
    home: Path,
    config: fdl.Buildable,
    number: int,
    values: Mapping[str, str],
    *,
    tuning: Tuning,
    vmapped: Sequence[str],
) -> Unit:
    """Makes the unit of a trial and writes its values to its directory."""
    for path, value in values.items():
        config = configs.apply_setting(config, f"{path}={value}")
    directory = get_trial_directory(home, number)
    directory.mkdir(parents=True, exist_ok=True)
    files.write_json(directory / "values.json", values)
    return Unit(directory, config, tuple(tuning.seeds), get_vmapped_numbers(config, vmapped))


def _draw_values(tuning: Tuning, config: fdl.Buildable, number: int) -> dict[str, str]:
    """Draws the values of a trial; all arms get the same value for a path."""
    values = {}
    for path, distribution in _select_space(tuning, config).items():
        # Seeded by the path, so that a value does not depend on which other paths an arm has.
        rng = np.random.default_rng([tuning.seed, number, zlib.crc32(path.encode())])
        values[path] = draw_value(distribution, rng)
    return values


def suggest_values(
    tuning: Tuning,
    space: Mapping[str, Distribution],
    number: int,
    earlier: Sequence[Mapping[str, Any]],
    direction: str,
    running: Sequence[Mapping[str, str]] = (),
) -> dict[str, str]:
    """Returns the next values of Optuna's sampler, a function of the trials before.

    Args:
      tuning: the search.
      space: the arm's search space.
      number: the number of the trial, from 0.
      earlier: the trials before, as `tuning.json` holds them.
      direction: "max" or "min".
      running: values of trials without a result yet, from which these should differ.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers: Any = optuna.samplers
    kinds = {"tpe": samplers.TPESampler, "cmaes": samplers.CmaEsSampler, "gp": samplers.GPSampler}
    distributions = make_optuna_distributions(space)
    options: dict[str, Any] = {"seed": 1000 * tuning.seed + number}
    if running and tuning.sampler == "tpe":
        options["constant_liar"] = True  # takes running trials for bad ones
    # A new sampler per trial, with its own seed, suggests the same values after a resume.
    study = optuna.create_study(
        direction="maximize" if direction == "max" else "minimize",
        sampler=kinds[tuning.sampler](**options),
    )
    states = optuna.trial.TrialState

    def add_trial(values: Mapping[str, str], result: float | None, state: Any) -> None:
        params: dict[str, str | float] = {}
        for path, value in values.items():
            params[path] = value if isinstance(space[path], Choice) else float(value)
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions=distributions, value=result, state=state
            )
        )

    for trial in earlier:
        state = states.FAIL if trial["value"] is None else states.COMPLETE
        add_trial(trial["values"], trial["value"], state)
    for values in running:
        add_trial(values, None, states.RUNNING)
    suggested = study.ask(distributions).params
    return dict(zip(suggested, map(str, suggested.values()), strict=True))


def _read_trial(home: Path, number: int, metric: tuple[str, str]) -> dict[str, Any]:
    """Reads an ended trial: its values, and its metric averaged over seeds (None if it failed)."""
    directory = get_trial_directory(home, number)
    values = files.read_json(directory / "values.json")
    mean, path = None, directory / "result.json"
    if path.exists():
        result = files.read_json(path)
        with files.name_damaged_file(path):
            scores = [seed["validation"][metric[0]] for seed in result["seeds"].values()]
            mean = float(np.mean(scores))
    return {"values": values, "value": None if mean is None or np.isnan(mean) else mean}


def choose_best_trial(
    home: Path, config: fdl.Buildable, tuning: Tuning, metric: tuple[str, str]
) -> fdl.Buildable:
    """Returns the configuration with the values of the best trial, if any trial completed."""
    name, direction = metric
    trials = [_read_trial(home, i, metric) for i in range(tuning.trials)]
    completed = [trial for trial in trials if trial["value"] is not None]
    sign = 1 if direction == "max" else -1
    best = max(completed, key=lambda trial: sign * trial["value"], default=None)
    chosen = None if best is None else best["values"]
    files.write_json(
        home / "tuning.json",
        {"metric": name, "direction": direction, "trials": trials, "chosen": chosen},
    )
    for path, value in (chosen or {}).items():
        config = configs.apply_setting(config, f"{path}={value}")
    return config
