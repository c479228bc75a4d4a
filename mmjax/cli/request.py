"""What a command asks for: an experiment, its arms and its seeds."""

import argparse
import contextlib
import copy
import functools
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import fiddle as fdl

from mmjax import config as configs
from mmjax.config import (
    ConfigError,
    check_calls,
    constructors,
    experiment_source,
    public_names,
    serialize,
)
from mmjax.config import trust as trusting
from mmjax.config.experiment_source import Arms, Source
from mmjax.config.trust import Trust
from mmjax.runs import experiment_code
from mmjax.runs import workdir as workdirs


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
    seeds, arms = options.seeds or [0], None
    if options.from_run is None:
        config = found.config()
    else:
        stored = workdirs.read(options.from_run)
        allow = [*options.allow, *found.allow, *known_modules(found)]
        config, stored_arms = load_experiments(options.from_run, stored, allow, found.module)
        seeds = options.seeds or stored.seeds
        if found.function is None and not options.settings:
            arms = stored_arms
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {' '.join(map(str, seeds))}: the seeds must differ.")
    for setting in options.settings:
        config = configs.apply(config, setting)
    return Plan(found, config, arms or make_arms(config, found.arms), tuple(seeds))


def load_experiments(
    directory: Path, stored: workdirs.Run, allow: Sequence[str], own: ModuleType | None
) -> tuple[fdl.Buildable, dict[str, fdl.Buildable]]:
    """Loads the configurations of a stored run: of the whole, and of each arm."""
    paths = {arm: workdirs.config_path(directory, arm) for arm in stored.arms}
    arms = {a: load_experiment(paths[a], t, allow, own) for a, t in stored.arms.items()}
    return load_experiment(workdirs.config_path(directory), stored.config, allow, own), arms


def load_experiment(
    path: Path, text: str, allow: Sequence[str], own: ModuleType | None
) -> fdl.Buildable:
    """The stored configuration of an experiment.

    Args:
      path: its file, for messages.
      text: the configuration, as stored.
      allow: modules that it may use.
      own: the experiment's own file.

    Raises:
      ConfigError: it is damaged, not trusted, or makes something else than an experiment; the
        message names the file.
    """
    try:
        return _load_experiment(text, allow, own)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _load_experiment(text: str, allow: Sequence[str], own: ModuleType | None) -> fdl.Buildable:
    from mmjax.experiment import Experiment
    from mmjax.model import Model

    config = configs.load(text, allow=allow, own=own)
    function = fdl.get_callable(config) if isinstance(config, fdl.Config) else None
    if function is not None and not constructors.is_constructor(function):
        return config  # It is of the experiment's file or of a module that the user allows.
    if function is not Experiment:
        raise ConfigError("the stored configuration makes no experiment.")
    check_calls.check_fields(config)
    model = config.__arguments__.get("model")
    if isinstance(model, fdl.Buildable) and fdl.get_callable(model) is Model:
        check_calls.check_fields(model, "model")
    return config


def make_arms(config: fdl.Buildable, arms: Arms | None) -> dict[str, fdl.Buildable]:
    """The arms by name; an experiment without arms is one arm called "all"."""
    made = arms(config) if arms else {"all": config}
    for name in made:
        workdirs.check_directory_name(name)
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
    arms_function = experiment_source.reference(plan.source.arms, own)
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


class Code(NamedTuple):
    """What of an experiment's own code a stored configuration may use.

    Attributes:
      own: the module of the experiment's file; None if it is not needed.
      allow: the other modules.
    """

    own: ModuleType | None
    allow: tuple[str, ...]


def trust_of(options: argparse.Namespace) -> Trust:
    """What the options permit a stored run."""
    return Trust(tuple(options.allow), options.allow_code, options.allow_writes)


def opening(options: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """Marks that a stored run is being opened, if the options name one."""
    stored = getattr(options, "from_run", None) or getattr(options, "run", None)
    return trusting.opening(trust_of(options)) if stored else contextlib.nullcontext()


def open_code(
    directory: Path, texts: Iterable[str], trust: Trust, mend: str, needed: Sequence[str] = ()
) -> Code:
    """Runs the stored copy of an experiment's code, if it is needed and the user permits it.

    Args:
      directory: the run's.
      texts: the configurations, as stored.
      trust: what the user permits.
      mend: how to permit it, for the message.
      needed: names of the experiment's file that are needed besides.

    Raises:
      ConfigError: it is needed and not permitted; the message says how to permit it.
    """
    texts = list(texts)
    copy = experiment_code.find_copy(directory)
    own = sorted({*needed, *(name for text in texts for name in serialize.own_names(text))})
    beside = set(copy.modules if copy else ()) & {m for t in texts for m in serialize.modules_of(t)}
    if not own and not (beside and trust.code):
        return Code(None, trust.modules)
    if copy is not None and trust.code:
        experiment_code.warn_of_changes(directory, copy)
        return Code(experiment_code.run_copy(copy), (*trust.modules, *copy.modules))
    if copy is not None and copy.module and public_names.inside(copy.module, trust.modules):
        return Code(experiment_source.import_module(copy.module), trust.modules)
    module = f" Or allow its module: --allow {copy.module}." if copy and copy.module else ""
    raise ConfigError(
        f"{directory} uses {', '.join(own)} of its experiment's own file, and opening a run "
        f"executes none of its code. {mend}{module}"
    )


def of_options(options: argparse.Namespace) -> Source:
    """The experiment that `mmjax run` names, or that the named run stored."""
    if options.target is not None:
        return experiment_source.of_target(options.target)
    if options.from_run is None:
        raise ConfigError("name an experiment: mmjax run FILE_OR_MODULE, or --from-run DIR.")
    stored = workdirs.read(options.from_run)
    home, _, name = (stored.arms_function or "").partition(":")
    # The arms are stored too, so that what made them is needed only to make others.
    needed = [name] * (home == serialize.OWN and bool(options.settings))
    texts = [stored.config, *stored.arms.values()]
    again = shlex.join(["--from-run", str(options.from_run)])
    mend = (
        f"If you trust the run: mmjax run {again} --allow-code. Or name your own file: mmjax run "
        f"FILE {again}."
    )
    code = open_code(options.from_run, texts, trust_of(options), mend, needed)
    arms = None
    if (
        options.settings
        or (home, name) in constructors.ARMS
        or (home == serialize.OWN and code.own)
    ):
        arms = experiment_source.dereference(stored.arms_function, code.own, code.allow)
    if arms is None and options.settings and list(stored.arms) != ["all"]:
        raise ConfigError(
            f"the arms of {options.from_run} cannot be made again without its experiment: "
            "mmjax run FILE --from-run DIR."
        )
    return Source(stored.name, None, code.own, arms, code.allow)


def of_run(options: argparse.Namespace) -> tuple[dict[str, fdl.Buildable], fdl.Buildable]:
    """The configurations of the arms of the run that `mmjax evaluate` names, and of the whole."""
    stored = workdirs.read(options.run)
    texts = [stored.config, *stored.arms.values()]
    if options.experiment is not None:
        found = experiment_source.of_target(options.experiment)
        code = Code(found.module, (*options.allow, *known_modules(found)))
    else:
        again = shlex.join(["mmjax", "evaluate", str(options.run)])
        mend = (
            f"If you trust the run: {again} --allow-code. Or name your own file: {again} "
            "--experiment FILE."
        )
        code = open_code(options.run, texts, trust_of(options), mend)
    config, arms = load_experiments(options.run, stored, code.allow, code.own)
    return arms, config


def _with_data(arm: fdl.Buildable, data: Any, made: Any) -> fdl.Buildable:
    """The arm with its data made already, where they are those given."""
    if data is None or arm.__arguments__.get("data") != data:
        return arm
    arm = copy.copy(arm)
    arm.data = made
    return arm
