"""What is trained: units, their lanes, and which lanes can share a program."""

import ast
import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import fiddle as fdl

from mmjax import config as configs
from mmjax.config import ConfigError, public_names
from mmjax.experiment import Experiment
from mmjax.train.traced_hparams import Sweep

TRACED = ("model", "optimizer", "balancer", "augment", "modality_dropout")
"""The parts of an experiment whose numbers the program itself uses."""


class Unit(NamedTuple):
    """One configuration to be trained with its seeds: an arm, or a trial of a search.

    Attributes:
      home: its directory, which gets its logs and its result.
      config: its configuration.
      seeds: its seeds.
      numbers: {path: number} that may differ within a program.
    """

    home: Path
    config: fdl.Buildable
    seeds: tuple[int, ...]
    numbers: Mapping[str, float]


class Lane(NamedTuple):
    """One training: a unit with one of its seeds."""

    unit: Unit
    seed: int


Build = Callable[[fdl.Buildable], Experiment]


def builder(base: fdl.Buildable) -> Build:
    """A function that makes experiments, and the base's data once for all that have them."""
    made: dict[str, Any] = {}

    def build(config: fdl.Buildable) -> Experiment:
        data = config.__arguments__.get("data")
        if isinstance(data, fdl.Buildable) and data == base.__arguments__.get("data"):
            if not made:
                made["data"] = configs.build(data, at="data")
            config = copy.copy(config)
            config.data = made["data"]
        experiment: Experiment = configs.build(config)
        return experiment

    return build


def numbers_of(config: fdl.Buildable, vmapped: Sequence[str]) -> dict[str, float]:
    """The numbers that a configuration has at the paths, if it has any there."""
    rows = configs.flatten(config)
    found = {path: _literal(rows[path]) for path in vmapped if path in rows}
    return {path: value for path, value in found.items() if value is not None}


def check_vmapped(vmapped: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Refuses paths that no arm has, or whose numbers the program does not use itself.

    Args:
      vmapped: the paths.
      rows: `configs.flatten` of every arm.

    Raises:
      ConfigError: naming the path and what there is.
    """
    for path in vmapped:
        if path.partition(".")[0] not in TRACED:
            raise ConfigError(
                f"vmapped names {path}, which decides what the host does, so lanes of one program "
                f"cannot differ in it; it must be a number in {', '.join(TRACED)}."
            )
        values = [row[path] for row in rows if path in row]
        known = sorted({p for row in rows for p, v in row.items() if _literal(v) is not None})
        if not values:
            near = public_names.did_you_mean(path, known)
            raise ConfigError(f"vmapped names {path}, which no arm has.{near}")
        if all(_literal(value) is None for value in values):
            raise ConfigError(f"vmapped names {path}, which is no number: {values[0]}.")


def grouped(units: Sequence[Unit], own: ModuleType | None) -> list[list[Lane]]:
    """The lanes of each program: units whose configurations differ in their numbers alone."""
    groups: dict[str, list[Lane]] = {}
    for unit in units:
        groups.setdefault(_but_for_numbers(unit, own), []).extend(
            Lane(unit, seed) for seed in unit.seeds
        )
    return list(groups.values())


def sweep(lanes: Sequence[Lane], experiment: Experiment) -> Sweep | None:
    """The numbers of a program's lanes; None where there are none.

    Args:
      lanes: the lanes.
      experiment: that of the first lane, whose data serve all of them.
    """
    first = lanes[0].unit
    if not first.numbers:
        return None
    config = configs.put(first.config, "data", experiment.data)

    def build(numbers: Mapping[str, Any]) -> Experiment:
        made = config
        for path, value in numbers.items():
            made = configs.put(made, path, value)
        experiment: Experiment = configs.build(made)
        return experiment

    values = {p: tuple(lane.unit.numbers[p] for lane in lanes) for p in first.numbers}
    return Sweep(build, values)


def split(lanes: Sequence[Lane], most: int | None) -> list[list[Lane]]:
    """The lanes in as few pieces of about one size as `most` lanes a piece allow."""
    pieces = 1 if most is None else -(-len(lanes) // most)
    cuts = [len(lanes) * i // pieces for i in range(pieces + 1)]
    return [list(lanes[a:b]) for a, b in itertools.pairwise(cuts)]


def steps(experiment: Experiment) -> int:
    """Training steps of one lane."""
    return experiment.epochs * (len(experiment.data.splits["train"]) // experiment.batch_size)


def _literal(text: str) -> float | None:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    return float(value) if type(value) in (int, float) else None


def _but_for_numbers(unit: Unit, own: ModuleType | None) -> str:
    config = unit.config
    for path in unit.numbers:
        config = configs.put(config, path, 0.0)
    return configs.dump(config, own)
