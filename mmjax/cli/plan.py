"""What a command asks for: an experiment, its arms and its seeds."""

import argparse
import copy
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import fiddle as fdl

from mmjax import config as configs
from mmjax.cli import workdir as workdirs
from mmjax.config import ConfigError, serialize, source
from mmjax.config.source import Arms, Source


class Plan(NamedTuple):
    """An experiment with all that the command line says of it.

    Attributes:
      source: where it comes from.
      config: the resolved configuration.
      arms: {arm: configuration}.
      seeds: the seeds.
    """

    source: Source
    config: fdl.Buildable
    arms: dict[str, fdl.Buildable]
    seeds: tuple[int, ...]


def make_plan(found: Source, options: argparse.Namespace) -> Plan:
    """The configuration of every arm, with the settings applied to the experiment itself.

    Raises:
      ConfigError: a bad setting, a repeated seed, or a stored configuration that is not trusted.
    """
    seeds = options.seeds or [0]
    if options.from_run is None:
        config = found.config()
    else:
        stored = workdirs.read(options.from_run)
        allow = [*options.allow, *known_modules(found)]
        config = configs.load(stored.config, allow=allow, own=found.module)
        seeds = options.seeds or stored.seeds
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {' '.join(map(str, seeds))}: the seeds must differ.")
    for setting in options.settings:
        config = configs.apply(config, setting)
    return Plan(found, config, make_arms(config, found.arms), tuple(seeds))


def make_arms(config: fdl.Buildable, arms: Arms | None) -> dict[str, fdl.Buildable]:
    """The arms by name; an experiment without arms is one arm called "all"."""
    made = arms(config) if arms else {"all": config}
    for name in made:
        workdirs.check_arm_name(name)
    return made


def known_modules(found: Source) -> set[str]:
    """The modules that the experiment at hand uses itself: the user runs them anyway."""
    if found.function is None:
        return set()
    return serialize.modules_of(configs.dump(found.config(), found.module))


def as_stored(plan: Plan) -> workdirs.Run:
    """What the run's directory will hold of the plan."""
    own = plan.source.module
    arms = {name: configs.dump(arm, own) for name, arm in plan.arms.items()}
    arms_function = source.reference(plan.source.arms, own)
    config = configs.dump(plan.config, own)
    return workdirs.Run(plan.source.name, config, arms, arms_function, plan.seeds)


def build_arms(
    arms: Mapping[str, fdl.Buildable], base: fdl.Buildable
) -> dict[str, Callable[[], Any]]:
    """{arm: a function that returns its experiment}; arms with the data of the base share them.

    Raises:
      ConfigError: a constructor refused its arguments.
    """
    data = base.__arguments__.get("data")
    made = configs.build(data, at="data") if isinstance(data, fdl.Buildable) else data
    built = {name: configs.build(_with_data(arm, data, made)) for name, arm in arms.items()}
    return {arm: functools.partial(built.__getitem__, arm) for arm in built}


def own_module(directory: Path, stored: workdirs.Run) -> ModuleType | None:
    """The run's copy of its experiment's file, if the configuration needs it.

    It is the run's own code: naming the run is trusting it.
    """
    texts = [stored.config, *stored.arms.values()]
    if any(map(serialize.uses_own_file, texts)) or (stored.arms_function or "").startswith("<"):
        return source.import_file(directory / "experiment.py")
    return None


def of_options(options: argparse.Namespace) -> Source:
    """The experiment that `mmjax run` names, or that the named run stored."""
    if options.target is not None:
        return source.of_target(options.target)
    if options.from_run is None:
        raise ConfigError("name an experiment: mmjax run FILE_OR_MODULE, or --from-run DIR.")
    stored = workdirs.read(options.from_run)
    own = own_module(options.from_run, stored)
    arms = source.dereference(stored.arms_function, own, tuple(options.allow))
    if arms is None and list(stored.arms) != ["all"]:
        raise ConfigError(
            f"the arms of {options.from_run} cannot be made again without its experiment: "
            "mmjax run FILE --from-run DIR."
        )
    return Source(stored.name, None, own, arms)


def _with_data(arm: fdl.Buildable, data: Any, made: Any) -> fdl.Buildable:
    """The arm with its data made already, where they are those given."""
    if data is None or arm.__arguments__.get("data") != data:
        return arm
    arm = copy.copy(arm)
    arm.data = made
    return arm
