"""Loads the experiments that a run stored, with as much of their code as the user permits."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import fiddle as fdl

from mmjax import config as configs
from mmjax.config import (
    ConfigError,
    check_calls,
    constructors,
    experiment_source,
    public_names,
    references,
)
from mmjax.config.trust import Trust
from mmjax.runs import experiment_code
from mmjax.runs import workdir as workdirs


def load_experiments(
    directory: Path, stored: workdirs.Run, allow: Sequence[str], own: ModuleType | None
) -> tuple[fdl.Buildable, dict[str, fdl.Buildable]]:
    """Loads the configurations of a stored run: of the whole, and of each arm."""
    arms = {}
    for arm, text in stored.arms.items():
        arms[arm] = load_experiment(workdirs.config_path(directory, arm), text, allow, own)
    return load_experiment(workdirs.config_path(directory), stored.config, allow, own), arms


def load_experiment(
    path: Path, text: str, allow: Sequence[str], own: ModuleType | None
) -> fdl.Buildable:
    """Loads the stored configuration of an experiment.

    Args:
      path: its file, for messages.
      text: the configuration, as stored.
      allow: modules that it may use.
      own: the experiment's own file.

    Raises:
      ConfigError: it is damaged, not trusted, or does not make an experiment; the message names
        the file.
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
        raise ConfigError("the stored configuration does not make an experiment.")
    check_calls.check_fields(config)
    model = config.__arguments__.get("model")
    if isinstance(model, fdl.Buildable) and fdl.get_callable(model) is Model:
        check_calls.check_fields(model, "model")
    return config


class Code(NamedTuple):
    """The code that a stored configuration may use.

    Attributes:
      own: the module of the experiment's file; None if it is not needed.
      allow: the other modules.
    """

    own: ModuleType | None
    allow: tuple[str, ...]


def open_code(
    directory: Path, texts: Iterable[str], trust: Trust, fix: str, needed: Sequence[str] = ()
) -> Code:
    """Runs the stored copy of an experiment's code, if it is needed and the user permits it.

    Args:
      directory: the run's.
      texts: the configurations, as stored.
      trust: what the user permits.
      fix: how to permit it, for the message.
      needed: further names of the experiment's file that are needed.

    Raises:
      ConfigError: it is needed and not permitted; the message says how to permit it.
    """
    copy = experiment_code.find_copy(directory)
    own, modules = set(needed), set()
    for text in texts:
        own.update(references.own_names(text))
        modules |= references.modules_of(text)
    uses_copied_modules = copy is not None and not modules.isdisjoint(copy.modules)
    if not own and not (uses_copied_modules and trust.code):
        return Code(None, trust.modules)
    if copy is not None and trust.code:
        experiment_code.warn_of_changes(directory, copy)
        return Code(experiment_code.run_copy(copy), (*trust.modules, *copy.modules))
    if copy is not None and copy.module and public_names.inside(copy.module, trust.modules):
        return Code(experiment_source.import_module(copy.module), trust.modules)
    module = f" Or allow its module: --allow {copy.module}." if copy and copy.module else ""
    raise ConfigError(
        f"{directory} uses {', '.join(sorted(own))} of its experiment's own file, and opening a "
        f"run executes none of its code. {fix}{module}"
    )
