"""`mmjax data prepare NAME` and `mmjax data describe NAME`."""

import argparse
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fiddle as fdl

from mmjax import config as configs
from mmjax.config import ConfigError, experiment_source, parse, public_names, type_hints
from mmjax.config.literal_limits import shorten_for_message
from mmjax.data.dataset import Dataset
from mmjax.printing.console import print_text
from mmjax.printing.formatting import format_split_sizes

_FOLDERS = ("manual_dir", "data_dir")


def prepare_data_set(options: argparse.Namespace) -> None:
    """Prepares the files of a data set."""
    data = _build_data_set(options.name, _list_named_folders(options))
    sizes = dict(zip(data.splits, map(len, data.splits.values()), strict=True))
    print_text(f"{data.name} is ready: {format_split_sizes(sizes)}.")


def describe_data_set(options: argparse.Namespace) -> None:
    """Prints the description of a data set and draws some examples."""
    _check_picture_path(options.out)
    data = _build_data_set(options.name, _list_named_folders(options))
    from mmjax.data.describe import tables as description
    from mmjax.data.describe.plot_examples import draw_examples

    print_text(data.name)
    description.print_tables(description.describe_dataset(data))
    path = options.out or Path(f"{data.name.replace(os.sep, '-')}.png")
    split = draw_examples(data, path)
    print_text(f"Examples of {split}: {path}")


def _check_picture_path(path: Path | None) -> None:
    """Refuses a path to which no figure can be written, before the data set is made."""
    if path is not None and not path.absolute().parent.is_dir():
        raise ConfigError(f"--out {path}: the folder {path.parent} does not exist.")
    if path is not None and path.suffix.lower() != ".png":
        raise ConfigError(f"--out {path}: the figure is a PNG file; its name must end in .png.")


def _list_named_folders(options: argparse.Namespace) -> dict[str, Path]:
    """Returns {parameter: folder} of the folders that the options name."""
    given = {}
    for name in _FOLDERS:
        if (folder := getattr(options, name)) is not None:
            given[name] = folder
    return given


def _build_data_set(name: str, given: Mapping[str, Path]) -> Dataset:
    """Builds the data set that the user names, with the folders that the options name.

    Raises:
      ConfigError: there is no such data set, or it has no such parameter.
    """
    function = _find_data_function(name)
    config = function if isinstance(function, fdl.Buildable) else _make_config(name, function)
    for option, folder in given.items():
        if option not in type_hints.list_parameters(fdl.get_callable(config)):
            raise ConfigError(f"{name} takes no --{option.replace('_', '-')}; leave it out.")
        setattr(config, option, str(folder))
    data = configs.build_config(config)
    if not isinstance(data, Dataset):
        raise ConfigError(f"{name} makes a {type(data).__name__}; it must make an mmjax.Dataset.")
    return data


def _find_data_function(name: str) -> Any:
    """Finds what `name` stands for: a function, or a call of one as a configuration.

    Raises:
      ConfigError: there is none; the message lists the nearest data sets.
    """
    function, bracket, arguments = name.partition("(")
    if ":" in function:
        if not parse.MODULE_AND_NAME.fullmatch(function):
            raise ConfigError(f"{shorten_for_message(name)} is not of the form module:name.")
        experiment_source.import_module(function.partition(":")[0])
    if not bracket:
        return public_names.resolve_name(_complete_name(function))
    return parse.parse_candidates(f"{_complete_name(function)}({arguments}")[0]


def _complete_name(name: str) -> str:
    """Completes the name of a data set of mmjax; the user's own names stay as they are."""
    known = list_data_set_names()
    bare = name.strip().removeprefix("mmjax.").removeprefix("data.")
    if ":" in name or "." in bare:
        return name
    if bare not in known:
        near = public_names.did_you_mean(bare, known)
        incomplete = list(filter(_needs_arguments, known))
        complete = [n for n in known if n not in incomplete]
        raise ConfigError(
            f"unknown data set {bare!r}.{near} There are {', '.join(complete)}; with arguments in "
            f"parentheses, {', '.join(incomplete)}; write your own as module:name."
        )
    return f"data.{bare}"


def list_data_set_names() -> list[str]:
    """Lists the functions of mmjax.data that return data sets."""
    from mmjax import data

    names = []
    for name in data.__all__:
        if type_hints.resolve_annotations(getattr(data, name)).get("return") is Dataset:
            names.append(name)
    return sorted(names)


def _needs_arguments(name: str) -> bool:
    """Returns whether a function of mmjax.data has parameters without a default."""
    from mmjax import data

    parameters = inspect.signature(getattr(data, name)).parameters.values()
    return any(p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD for p in parameters)


def _make_config(name: str, function: Any) -> fdl.Buildable:
    if not callable(function):
        raise ConfigError(f"{name} is a {type(function).__name__}; name a function.")
    if hasattr(function, "as_buildable"):
        return function.as_buildable()
    return fdl.Config(function)
