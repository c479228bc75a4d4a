"""Folds of a study: every arm is trained once per fold of its data set."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fiddle as fdl
from fiddle import daglish

from mmjax.config import ConfigError
from mmjax.data.load.split_rows import Split
from mmjax.study.arms import Arm


def name_fold(arm: str, fold: int) -> str:
    """Returns the name of one fold of an arm, which is also that of its directory.

    Example:
      >>> name_fold("fusion=concat", 3)
      'fusion=concat,fold=3'
    """
    return f"{arm},fold={fold}"


def list_fold_homes(directory: Path, arm: str, folds: int) -> Iterator[tuple[int, Path]]:
    """Yields each fold of an arm and its directory; without folds, fold 0 is the whole arm.

    Args:
      directory: the study's directory.
      arm: the name of the arm.
      folds: number of folds; 0 if the study has none.
    """
    if not folds:
        yield 0, directory / "arms" / arm
    for fold in range(folds):
        yield fold, directory / "arms" / name_fold(arm, fold)


def make_fold_arms(arms: Mapping[str, Arm], folds: int) -> dict[str, Arm]:
    """Returns {name: one fold of an arm}, fold after fold, so that arms can share its data.

    Raises:
      ConfigError: the data set of an arm has no folds.
    """
    fold_arms = {}
    for fold in range(folds):
        for name, arm in arms.items():
            try:
                config = set_fold(arm.config, folds, fold)
            except ConfigError as error:
                raise ConfigError(f"arm {name}: {error}") from error
            fold_arms[name_fold(name, fold)] = arm._replace(config=config)
    return fold_arms


def set_fold(config: fdl.Buildable, folds: int, fold: int) -> fdl.Buildable:
    """Returns the configuration of an experiment on one fold of its data set.

    The fold is set in the `mmjax.data.Split` of the data set, or in any other call there that has
    the parameters `folds` and `fold`.

    Args:
      config: the configuration of an experiment.
      folds: number of folds.
      fold: which one, from 0 on.

    Raises:
      ConfigError: the data set has no such call, or one with another number of folds.
    """
    sizes = []

    def change(value: Any, state: daglish.State) -> Any:
        if isinstance(value, Split):
            sizes.append(value.folds)
            return value._replace(folds=folds, fold=fold)
        if state.is_traversable(value):
            value = state.map_children(value)
        if isinstance(value, fdl.Buildable) and _takes_folds(value):
            sizes.append(getattr(value, "folds", 0))
            value.folds, value.fold = folds, fold
        return value

    # Only the data are traversed and copied; the arms keep sharing the rest.
    config = copy.copy(config)
    config.data = daglish.MemoizedTraversal.run(change, config.__arguments__.get("data"))
    if not sizes:
        raise ConfigError(
            f"the study has folds={folds}, but its data set has none; give the data set "
            f"split=Split(folds={folds}), or a function of its own with parameters folds and fold."
        )
    if wrong := [size for size in sizes if size and size != folds]:
        raise ConfigError(
            f"the study has folds={folds}, but its data set has folds={wrong[0]}; give both the "
            "same number."
        )
    return config


def _takes_folds(call: fdl.Buildable) -> bool:
    """Checks whether a call has the parameters `folds` and `fold`."""
    return {"folds", "fold"} <= set(call.__signature_info__.parameters)
