"""Finds an experiment: a function decorated with `auto_config`, its file, and its arms."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import fiddle as fdl
from fiddle.experimental import auto_config as fiddle_auto_config

from mmjax.config import constructors, public_names
from mmjax.config.errors import ConfigError
from mmjax.config.references import OWN_FILE
from mmjax.loaded_code import FILE_MODULE_PREFIX

ArmsFunction = Callable[[fdl.Buildable], dict[str, fdl.Buildable]]


class ExperimentSource(NamedTuple):
    """The origin of an experiment.

    Attributes:
      name: the name of its runs: that of its file.
      function: the experiment function; None if there is only a stored configuration.
      module: its module, in which its own names are looked up.
      arms: makes its variants for comparison, if it has any.
      allow: modules that were stored beside the experiment's file and that the user allows.
    """

    name: str
    function: fiddle_auto_config.AutoConfig | None
    module: ModuleType | None
    arms: ArmsFunction | None
    allow: tuple[str, ...] = ()

    def config(self) -> fdl.Buildable:
        """Makes the configuration of the experiment."""
        if self.function is None:
            raise ConfigError("name an experiment, or a run by --from-run DIR.")
        return self.function.as_buildable()

    def doc(self) -> str:
        """Returns the docstring of the experiment's file or function, else its name."""
        for thing in (self.module, self.function):
            text = getattr(thing, "__doc__", None)
            if text:
                return str(text.strip())
        return self.name


def make_source(function: Any, arms: ArmsFunction | None) -> ExperimentSource:
    """Makes the source of an experiment function.

    Raises:
      ConfigError: the function is not under `auto_config`.
    """
    if not isinstance(function, fiddle_auto_config.AutoConfig):
        name = getattr(function, "__name__", repr(function))
        raise ConfigError(
            f"{name!r} is not an experiment; decorate it with @mmjax.config.auto_config."
        )
    module = sys.modules[function.func.__module__]
    name = Path(getattr(module, "__file__", None) or "experiment").stem
    function_name = function.func.__name__
    if function_name != "experiment":
        name = f"{name}-{function_name}"
    return ExperimentSource(name, function, module, arms)


def load_source(target: str) -> ExperimentSource:
    """Loads the source of FILE_OR_MODULE[:function]; a module-level ARMS makes its arms.

    Raises:
      ConfigError: no such file, module or function.
    """
    file_or_module, _, name = target.partition(":")
    module = import_target(target)
    function = getattr(module, name or "experiment", None)
    if function is None:
        known = list_members(module, fiddle_auto_config.AutoConfig)
        near = public_names.did_you_mean(name or "experiment", known)
        raise ConfigError(f"{file_or_module} defines no function '{name or 'experiment'}'.{near}")
    return make_source(function, getattr(module, "ARMS", None))


def list_members(module: ModuleType, kind: type) -> list[str]:
    """Lists the names of a module's values of one kind."""
    return [name for name, value in vars(module).items() if isinstance(value, kind)]


def import_target(target: str) -> ModuleType:
    """Imports the file or the module of FILE_OR_MODULE[:NAME]."""
    file_or_module = target.partition(":")[0]
    if file_or_module.endswith(".py"):
        return import_file(Path(file_or_module))
    return import_module(file_or_module)


def import_file(path: Path) -> ModuleType:
    """Runs a file as a module that may import its neighbors, as under `python FILE`."""
    if not path.is_file():
        raise ConfigError(f"the file {path} does not exist.")
    name = f"{FILE_MODULE_PREFIX}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    # Before the file runs, as `import` does: dataclasses look their module up while they are
    # defined.
    sys.modules[name] = module
    # The file imports its neighbors, as under `python file.py`.
    _add_to_import_path(path.resolve().parent)
    spec.loader.exec_module(module)
    return module


def import_module(name: str) -> ModuleType:
    """Imports a module, from the working directory too."""
    _add_to_import_path(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The module itself is missing, not one that it imports.
        if error.name and public_names.is_inside_packages(name, [error.name]):
            hint = f" Did you mean {name}.py?" if Path(f"{name}.py").is_file() else ""
            raise ConfigError(f"the module {name} does not exist.{hint}") from error
        raise


def make_arms_reference(arms: ArmsFunction | None, module: ModuleType | None) -> str | None:
    """Returns an arms function as `module:name`; None if it could not be found again."""
    home, name = getattr(arms, "__module__", ""), getattr(arms, "__qualname__", "<none>")
    if arms is None or "<" in name:
        return None
    return f"{OWN_FILE if module and home == module.__name__ else home}:{name}"


def resolve_arms_reference(
    text: str | None, module: ModuleType | None, allow: tuple[str, ...]
) -> ArmsFunction | None:
    """Finds the arms function that `make_arms_reference` recorded.

    Raises:
      ConfigError: its module is not trusted, or does not define it.
    """
    if text is None:
        return None
    home, _, name = text.partition(":")
    if home == OWN_FILE:
        home = getattr(module, "__name__", OWN_FILE)
    elif (home, name) not in constructors.ARM_FUNCTIONS and not public_names.is_inside_packages(
        home, allow
    ):
        raise ConfigError(f"the run's arms are of module '{home}'; if trusted, add --allow {home}.")
    else:
        module = importlib.import_module(home)
    arms = getattr(module, name, None)
    if not callable(arms):
        raise ConfigError(f"the run's arms are made by {name} of module '{home}', which has none.")
    function: ArmsFunction = arms
    return function


def _add_to_import_path(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
