"""Groups what a study trains: units, their replicas, and which replicas can share a program."""

import ast
import copy
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import fiddle as fdl

from mmjax import config as configs
from mmjax.config import ConfigError, public_names
from mmjax.experiment import Experiment
from mmjax.study.folds import set_fold
from mmjax.train.traced_hparams import Sweep

_TRACED_PARTS = ("model", "optimizer", "balancer", "augment", "modality_dropout")
"""Fields of an experiment whose numbers are traced by the compiled program."""


class Unit(NamedTuple):
    """One configuration to be trained with its seeds: an arm or a trial of a search.

    Attributes:
      home: the directory of its logs and its result.
      config: the configuration.
      seeds: the seeds.
      numbers: {path: number} of what may differ between the replicas of a program.
    """

    home: Path
    config: fdl.Buildable
    seeds: tuple[int, ...]
    numbers: Mapping[str, float]


class StudyReplica(NamedTuple):
    """One training inside a program: a unit with one of its seeds."""

    unit: Unit
    seed: int


ExperimentBuilder = Callable[[fdl.Buildable], Experiment]


def make_builder(base: fdl.Buildable, folds: int = 0) -> ExperimentBuilder:
    """Returns a function that builds experiments, which share the data of the base experiment.

    Args:
      base: the configuration of the base experiment.
      folds: number of folds of its data set, of which the last one used stays in memory.
    """
    base_data = [base.__arguments__.get("data")]
    base_data += [set_fold(base, folds, fold).data for fold in range(1, folds)]
    shared: dict[int, Any] = {}

    def build(config: fdl.Buildable) -> Experiment:
        data = config.__arguments__.get("data")
        if isinstance(data, fdl.Buildable) and data in base_data:
            fold = base_data.index(data)
            if fold not in shared:
                shared.clear()  # before the next fold is read: two may not fit in memory
                shared[fold] = configs.build_config(data, at="data")
            config = copy.copy(config)
            config.data = shared[fold]
        experiment: Experiment = configs.build_config(config)
        return experiment

    return build


def get_vmapped_numbers(config: fdl.Buildable, vmapped: Sequence[str]) -> dict[str, float]:
    """Returns {path: number} for the paths at which a configuration has a number."""
    rows = configs.flatten_config(config)
    numbers = {}
    for path in vmapped:
        value = _parse_number(rows[path]) if path in rows else None
        if value is not None:
            numbers[path] = value
    return numbers


def check_vmapped(vmapped: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Checks that some arm has each path, and that the compiled program traces its number.

    Args:
      vmapped: the paths.
      rows: `configs.flatten` of every arm.

    Raises:
      ConfigError: a path is unknown, not traced or not a number.
    """
    for path in vmapped:
        if path.partition(".")[0] not in _TRACED_PARTS:
            raise ConfigError(
                f"vmapped names {path}, which is used outside of the compiled program, so the "
                "replicas of one program cannot differ in it; choose a number in "
                f"{', '.join(_TRACED_PARTS)}."
            )
        values = [row[path] for row in rows if path in row]
        if not values:
            known = {p for row in rows for p, v in row.items() if _parse_number(v) is not None}
            near = public_names.did_you_mean(path, known)
            raise ConfigError(f"vmapped names {path}, which no arm has.{near}")
        if all(_parse_number(value) is None for value in values):
            raise ConfigError(f"vmapped names {path}, which is not a number but {values[0]}.")


def group_replicas(units: Sequence[Unit], module: ModuleType | None) -> list[list[StudyReplica]]:
    """Returns the replicas of each program: units whose configurations differ in numbers only."""
    groups: dict[str, list[StudyReplica]] = {}
    for unit in units:
        group = groups.setdefault(_dump_without_numbers(unit, module), [])
        group += map(StudyReplica, itertools.repeat(unit), unit.seeds)
    return list(groups.values())


def list_seeds(replicas: Iterable[StudyReplica]) -> list[int]:
    """Lists the seed of each replica."""
    return [replica.seed for replica in replicas]


def make_sweep(replicas: Sequence[StudyReplica], experiment: Experiment) -> Sweep | None:
    """Returns the numbers in which a program's replicas differ; None if there are none.

    Args:
      replicas: the replicas of the program.
      experiment: the experiment of the first replica; all replicas use its data.
    """
    first = replicas[0].unit
    if not first.numbers:
        return None
    # The data set is there already; building the rest again is cheap, with traced numbers.
    config = configs.replace_value(first.config, "data", experiment.data)

    def build(numbers: Mapping[str, Any]) -> Experiment:
        changed_config = config
        for path, value in numbers.items():
            changed_config = configs.replace_value(changed_config, path, value)
        experiment: Experiment = configs.build_config(changed_config)
        return experiment

    values = {p: tuple(replica.unit.numbers[p] for replica in replicas) for p in first.numbers}
    return Sweep(build, values)


def split_replicas(
    replicas: Sequence[StudyReplica], max_replicas: int | None
) -> list[list[StudyReplica]]:
    """Splits replicas into the fewest programs of about equal size.

    Args:
      replicas: the replicas.
      max_replicas: largest number of replicas per program; None for no limit.
    """
    pieces = 1 if max_replicas is None else -(-len(replicas) // max_replicas)
    bounds = [len(replicas) * i // pieces for i in range(pieces + 1)]
    return [list(replicas[start:end]) for start, end in itertools.pairwise(bounds)]


def count_steps(experiment: Experiment) -> int:
    """Returns the number of training steps of one replica."""
    return experiment.epochs * (len(experiment.data.splits["train"]) // experiment.batch_size)


def _parse_number(text: str) -> float | None:
    """Returns the number that a value as text stands for; None if it is not a number."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    return float(value) if type(value) in (int, float) else None


def _dump_without_numbers(unit: Unit, module: ModuleType | None) -> str:
    """Returns a unit's stored configuration with its vmapped numbers set to zero."""
    config = unit.config
    for path in unit.numbers:
        config = configs.replace_value(config, path, 0.0)
    return configs.dump_config(config, module)
