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
from mmjax.cli.options import read_trust_options
from mmjax.config import ConfigError, constructors, experiment_source, references
from mmjax.config import trust as trusting
from mmjax.config.experiment_source import ArmsFunction, ExperimentSource
from mmjax.runs import workdir as workdirs
from mmjax.runs.stored_experiment import UsableCode, load_run_configs, load_stored_code


class RunRequest(NamedTuple):
    """An experiment with the settings of the command line.

    Attributes:
      source: where the experiment comes from.
      config: the resolved configuration.
      arms: {arm: configuration}.
      seeds: the seeds.
    """

    source: ExperimentSource
    config: fdl.Buildable
    arms: dict[str, fdl.Buildable]
    seeds: tuple[int, ...]


def read_run_of_options(options: argparse.Namespace) -> workdirs.StoredRun | None:
    """Reads the run that `--from-run` names; None if the options name none."""
    return None if options.from_run is None else workdirs.read_stored_run(options.from_run)


def make_run_request(
    source: ExperimentSource, stored: workdirs.StoredRun | None, options: argparse.Namespace
) -> RunRequest:
    """Makes the configuration of every arm; settings are applied to the experiment itself.

    Args:
      source: where the experiment comes from.
      stored: what `read_run_of_options` returned.
      options: the parsed command line.

    Raises:
      ConfigError: a bad setting, a repeated seed, or a stored configuration that is not trusted.
    """
    seeds, arms = options.seeds or [0], None
    if stored is None:
        config = source.config()
    else:
        allow = [*options.allow, *source.allow, *_list_modules_of_source(source)]
        config, stored_arms = load_run_configs(options.from_run, stored, allow, source.module)
        seeds = options.seeds or stored.seeds
        if source.function is None and not options.settings:
            arms = stored_arms
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {' '.join(map(str, seeds))}: the seeds must differ.")
    for setting in options.settings:
        config = configs.apply_setting(config, setting)
    return RunRequest(source, config, arms or _make_arm_configs(config, source.arms), tuple(seeds))


def _make_arm_configs(config: fdl.Buildable, arms: ArmsFunction | None) -> dict[str, fdl.Buildable]:
    """Returns the arms by name; an experiment without arms is one arm named "all"."""
    arm_configs = arms(config) if arms else {"all": config}
    for name in arm_configs:
        workdirs.check_directory_name(name)
    return arm_configs


def _list_modules_of_source(source: ExperimentSource) -> set[str]:
    """Lists the modules that the named experiment uses itself: the user runs them anyway."""
    if source.function is None:
        return set()
    return references.list_foreign_modules(configs.dump_config(source.config(), source.module))


def make_stored_run(plan: RunRequest) -> workdirs.StoredRun:
    """Converts the plan to the form in which a run's directory stores it."""
    own = plan.source.module
    arms = {name: configs.dump_config(arm, own) for name, arm in plan.arms.items()}
    arms_function = experiment_source.make_arms_reference(plan.source.arms, own)
    config = configs.dump_config(plan.config, own)
    return workdirs.StoredRun(plan.source.name, config, arms, arms_function, plan.seeds)


def build_experiments(
    arms: Mapping[str, fdl.Buildable], base: fdl.Buildable
) -> dict[str, Callable[[], Any]]:
    """Builds the experiments of arms; arms with the same data as the base share its data set.

    Returns:
      {arm: a function that returns its experiment}.

    Raises:
      ConfigError: a constructor refused its arguments.
    """
    data = base.__arguments__.get("data")
    data_set = configs.build_config(data, at="data") if isinstance(data, fdl.Buildable) else data
    # Built once and then looked up: training asks for an experiment when its turn comes.
    experiments = {}
    for name, arm in arms.items():
        experiments[name] = configs.build_config(_share_data(arm, data, data_set))
    return {name: functools.partial(experiments.__getitem__, name) for name in experiments}


def check_experiments(
    experiments: Mapping[str, Callable[[], Any]], devices: int | None
) -> dict[str, int]:
    """Refuses experiments whose parts do not fit, before anything is compiled.

    Returns:
      {arm: number of devices that will train it}.

    Raises:
      ConfigError: of several arms one is invalid; the message names it.
      ValueError: the only arm is invalid.
    """
    from mmjax.train.checks.experiment_check import check_experiment
    from mmjax.train.hardware.devices import choose_devices

    device_counts: dict[str, int] = {}
    data_sets: dict[int, Any] = {}
    for arm, make in experiments.items():
        experiment = make()
        try:
            device_counts[arm] = len(choose_devices(experiment, devices))
            checked = id(experiment.data) in data_sets  # arms share one
            check_experiment(experiment, device_counts[arm], splits_checked=checked)
            data_sets[id(experiment.data)] = experiment.data
        except ValueError as error:
            if len(experiments) == 1:
                raise
            raise ConfigError(f"arm {arm}: {error}") from error
    return device_counts


def open_run_with_options(options: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """Marks that a stored run is being opened, if the options name one."""
    stored = getattr(options, "from_run", None) or getattr(options, "run", None)
    return (
        trusting.open_stored_run(read_trust_options(options))
        if stored
        else contextlib.nullcontext()
    )


def find_source(options: argparse.Namespace, stored: workdirs.StoredRun | None) -> ExperimentSource:
    """Finds the experiment that `mmjax run` names, or that the given stored run is of."""
    if options.target is not None:
        return experiment_source.load_source(options.target)
    if stored is None:
        raise ConfigError("name an experiment: mmjax run FILE_OR_MODULE, or --from-run DIR.")
    return _make_source_of_run(options, stored)


def _make_source_of_run(
    options: argparse.Namespace, stored: workdirs.StoredRun
) -> ExperimentSource:
    """Makes the experiment of a stored run, with the function of its arms if it is needed."""
    module, _, name = (stored.arms_function or "").partition(":")
    is_own = module == references.OWN_FILE
    # The arms are stored too, so the function that made them is needed only to make others.
    needed = [name] if is_own and options.settings else []
    texts = [stored.config, *stored.arms.values()]
    again = shlex.join(["--from-run", str(options.from_run)])
    fix = (
        f"If you trust the run: mmjax run {again} --allow-code. Or name your own file: mmjax run "
        f"FILE {again}."
    )
    code = load_stored_code(options.from_run, texts, read_trust_options(options), fix, needed)
    arms = None
    if options.settings or (module, name) in constructors.ARM_FUNCTIONS or (is_own and code.own):
        arms = experiment_source.resolve_arms_reference(stored.arms_function, code.own, code.allow)
    if arms is None and options.settings and list(stored.arms) != ["all"]:
        raise ConfigError(
            f"the arms of {options.from_run} cannot be made again without its experiment: "
            "mmjax run FILE --from-run DIR."
        )
    return ExperimentSource(stored.name, None, code.own, arms, code.allow)


def load_configs_to_evaluate(
    stored: workdirs.StoredRun, options: argparse.Namespace
) -> tuple[dict[str, fdl.Buildable], fdl.Buildable]:
    """Loads the configurations of the arms of the run to evaluate, and of the whole."""
    texts = [stored.config, *stored.arms.values()]
    if options.experiment is not None:
        source = experiment_source.load_source(options.experiment)
        code = UsableCode(source.module, (*options.allow, *_list_modules_of_source(source)))
    else:
        again = shlex.join(["mmjax", "evaluate", str(options.run)])
        fix = (
            f"If you trust the run: {again} --allow-code. Or name your own file: {again} "
            "--experiment FILE."
        )
        code = load_stored_code(options.run, texts, read_trust_options(options), fix)
    config, arms = load_run_configs(options.run, stored, code.allow, code.own)
    return arms, config


def _share_data(arm: fdl.Buildable, data: Any, data_set: Any) -> fdl.Buildable:
    """Replaces the arm's data by the data set that is already built, if it is the same."""
    if data is None or arm.__arguments__.get("data") != data:
        return arm
    arm = copy.copy(arm)
    arm.data = data_set
    return arm
