"""Resolves what a command asks for: an experiment, its arms and its seeds."""

import argparse
import contextlib
import copy
import functools
import shlex
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import fiddle as fdl

from mmjax import config as configs
from mmjax.config import ConfigError, constructors, experiment_source, references
from mmjax.config import trust as trusting
from mmjax.config.experiment_source import Arms, Source
from mmjax.config.trust import Trust
from mmjax.runs import workdir as workdirs
from mmjax.runs.stored_experiment import Code, load_experiments, open_code


class Plan(NamedTuple):
    """An experiment with the settings of the command line.

    Attributes:
      source: where the experiment comes from.
      config: the resolved configuration.
      arms: {arm: configuration}.
      seeds: the seeds.
    """

    source: Source
    config: fdl.Buildable
    arms: dict[str, fdl.Buildable]
    seeds: tuple[int, ...]


def make_plan(source: Source, options: argparse.Namespace) -> Plan:
    """Makes the configuration of every arm; settings are applied to the experiment itself.

    Raises:
      ConfigError: a bad setting, a repeated seed, or a stored configuration that is not trusted.
    """
    seeds, arms = options.seeds or [0], None
    if options.from_run is None:
        config = source.config()
    else:
        stored = workdirs.read(options.from_run)
        allow = [*options.allow, *source.allow, *known_modules(source)]
        config, stored_arms = load_experiments(options.from_run, stored, allow, source.module)
        seeds = options.seeds or stored.seeds
        if source.function is None and not options.settings:
            arms = stored_arms
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {' '.join(map(str, seeds))}: the seeds must differ.")
    for setting in options.settings:
        config = configs.apply(config, setting)
    return Plan(source, config, arms or make_arms(config, source.arms), tuple(seeds))


def make_arms(config: fdl.Buildable, arms: Arms | None) -> dict[str, fdl.Buildable]:
    """Returns the arms by name; an experiment without arms is one arm named "all"."""
    arm_configs = arms(config) if arms else {"all": config}
    for name in arm_configs:
        workdirs.check_directory_name(name)
    return arm_configs


def known_modules(source: Source) -> set[str]:
    """Lists the modules that the named experiment uses itself: the user runs them anyway."""
    if source.function is None:
        return set()
    return references.modules_of(configs.dump(source.config(), source.module))


def as_stored(plan: Plan) -> workdirs.Run:
    """Converts the plan to the form in which a run's directory stores it."""
    own = plan.source.module
    arms = {name: configs.dump(arm, own) for name, arm in plan.arms.items()}
    arms_function = experiment_source.reference(plan.source.arms, own)
    config = configs.dump(plan.config, own)
    return workdirs.Run(plan.source.name, config, arms, arms_function, plan.seeds)


def build_arms(
    arms: Mapping[str, fdl.Buildable], base: fdl.Buildable
) -> dict[str, Callable[[], Any]]:
    """Builds the experiments of arms; arms with the same data as the base share its data set.

    Returns:
      {arm: a function that returns its experiment}.

    Raises:
      ConfigError: a constructor refused its arguments.
    """
    data = base.__arguments__.get("data")
    data_set = configs.build(data, at="data") if isinstance(data, fdl.Buildable) else data
    # Built once and then looked up: training asks for an experiment when its turn comes.
    experiments = {}
    for name, arm in arms.items():
        experiments[name] = configs.build(_with_data(arm, data, data_set))
    return {name: functools.partial(experiments.__getitem__, name) for name in experiments}


def trust_of(options: argparse.Namespace) -> Trust:
    """Returns what the options permit a stored run."""
    return Trust(tuple(options.allow), options.allow_code, options.allow_writes)


def opening(options: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """Marks that a stored run is being opened, if the options name one."""
    stored = getattr(options, "from_run", None) or getattr(options, "run", None)
    return trusting.opening(trust_of(options)) if stored else contextlib.nullcontext()


def of_options(options: argparse.Namespace) -> Source:
    """Finds the experiment that `mmjax run` names, or that the named run stored."""
    if options.target is not None:
        return experiment_source.of_target(options.target)
    if options.from_run is None:
        raise ConfigError("name an experiment: mmjax run FILE_OR_MODULE, or --from-run DIR.")
    stored = workdirs.read(options.from_run)
    module, _, name = (stored.arms_function or "").partition(":")
    is_own = module == references.OWN
    # The arms are stored too, so the function that made them is needed only to make others.
    needed = [name] if is_own and options.settings else []
    texts = [stored.config, *stored.arms.values()]
    again = shlex.join(["--from-run", str(options.from_run)])
    fix = (
        f"If you trust the run: mmjax run {again} --allow-code. Or name your own file: mmjax run "
        f"FILE {again}."
    )
    code = open_code(options.from_run, texts, trust_of(options), fix, needed)
    arms = None
    if options.settings or (module, name) in constructors.ARMS or (is_own and code.own):
        arms = experiment_source.dereference(stored.arms_function, code.own, code.allow)
    if arms is None and options.settings and list(stored.arms) != ["all"]:
        raise ConfigError(
            f"the arms of {options.from_run} cannot be made again without its experiment: "
            "mmjax run FILE --from-run DIR."
        )
    return Source(stored.name, None, code.own, arms, code.allow)


def of_run(
    stored: workdirs.Run, options: argparse.Namespace
) -> tuple[dict[str, fdl.Buildable], fdl.Buildable]:
    """Loads the configurations of the arms of the run to evaluate, and of the whole."""
    texts = [stored.config, *stored.arms.values()]
    if options.experiment is not None:
        source = experiment_source.of_target(options.experiment)
        code = Code(source.module, (*options.allow, *known_modules(source)))
    else:
        again = shlex.join(["mmjax", "evaluate", str(options.run)])
        fix = (
            f"If you trust the run: {again} --allow-code. Or name your own file: {again} "
            "--experiment FILE."
        )
        code = open_code(options.run, texts, trust_of(options), fix)
    config, arms = load_experiments(options.run, stored, code.allow, code.own)
    return arms, config


def _with_data(arm: fdl.Buildable, data: Any, data_set: Any) -> fdl.Buildable:
    """Replaces the arm's data by the data set that is already built, if it is the same."""
    if data is None or arm.__arguments__.get("data") != data:
        return arm
    arm = copy.copy(arm)
    arm.data = data_set
    return arm
