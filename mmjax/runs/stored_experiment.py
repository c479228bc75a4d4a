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


def load_run_configs(
    directory: Path, stored: workdirs.StoredRun, allow: Sequence[str], own: ModuleType | None
) -> tuple[fdl.Buildable, dict[str, fdl.Buildable]]:
    """Loads the configurations of a stored run: of the whole, and of each arm."""
    arms = {}
    for arm, text in stored.arms.items():
        arms[arm] = load_experiment_config(
            workdirs.get_config_path(directory, arm), text, allow, own
        )
    path = workdirs.get_config_path(directory)
    return load_experiment_config(path, stored.config, allow, own), arms


def load_experiment_config(
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
        return _load_checked_config(text, allow, own)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _load_checked_config(text: str, allow: Sequence[str], own: ModuleType | None) -> fdl.Buildable:
    from mmjax.experiment import Experiment
    from mmjax.model import Model

    config = configs.load_config(text, allow=allow, own=own)
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


class UsableCode(NamedTuple):
    """The code that a stored configuration may use.

    Attributes:
      own: the module of the experiment's file; None if it is not needed.
      allow: the other modules.
    """

    own: ModuleType | None
    allow: tuple[str, ...]


def load_stored_code(
    directory: Path, texts: Iterable[str], trust: Trust, fix: str, needed: Sequence[str] = ()
) -> UsableCode:
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
    copy = experiment_code.find_code_copy(directory)
    own, modules = set(needed), set()
    for text in texts:
        own.update(references.list_own_names(text))
        modules |= references.list_foreign_modules(text)
    uses_copied_modules = copy is not None and not modules.isdisjoint(copy.modules)
    if not own and not (uses_copied_modules and trust.code):
        return UsableCode(None, trust.modules)
    if copy is not None and trust.code:
        experiment_code.warn_of_changed_copy(directory, copy)
        return UsableCode(experiment_code.run_code_copy(copy), (*trust.modules, *copy.modules))
    if (
        copy is not None
        and copy.module
        and public_names.is_inside_packages(copy.module, trust.modules)
    ):
        return UsableCode(experiment_source.import_module(copy.module), trust.modules)
    module = f" Or allow its module: --allow {copy.module}." if copy and copy.module else ""
    raise ConfigError(
        f"{directory} uses {', '.join(sorted(own))} of its experiment's own file, and opening a "
        f"run executes none of its code. {fix}{module}"
    )
