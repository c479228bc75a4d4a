"""The directory of a study: what makes it, written once, and what may go on there."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mmjax import config as configs
from mmjax import files, provenance
from mmjax.config import ConfigError, references
from mmjax.runs.experiment_code import store_code
from mmjax.runs.run_files import read_config, write_config
from mmjax.study.run_study import Plan

STARTED = {"provenance.json", "config.json", "experiment.py", "code", "code.json"}
"""What a start writes before study.json."""


def start(plan: Plan, directory: Path, source: Path | None, record: Mapping[str, Any]) -> None:
    """Writes what makes the study into its directory, or that it is resumed.

    Args:
      plan: the study.
      directory: its directory.
      source: the study's file.
      record: `provenance.record`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    provenance.append(directory, record)
    if (directory / "study.json").is_file():
        return
    write_config(directory / "config.json", configs.dump(plan.base, plan.own))
    store_code(directory, plan.own)
    if source is not None:
        shutil.copyfile(source, directory / "experiment.py")
    files.write_json(directory / "study.json", plan.facts)


def check(plan: Plan, directory: Path, *, resume: bool) -> None:
    """Refuses a directory that holds anything but this very study, to be resumed.

    Raises:
      ConfigError: naming what differs.
    """
    if files.is_free(directory):
        return
    if not (directory / "study.json").is_file():
        found = {p.name for p in directory.iterdir() if not files.is_lock_file(p)}
        if resume and found <= STARTED:
            return
        raise ConfigError(f"{directory} is not empty and holds no study; choose another --workdir.")
    if not resume:
        raise ConfigError(
            f"{directory} already holds a study; add --resume to continue it, or choose another "
            "--workdir."
        )
    stored = files.read_json(directory / "study.json")
    with files.naming_damage(directory / "study.json"):
        asked = {k: v for k, v in plan.facts.items() if k in stored or k != "base"}  # older lack it
        differing = [key for key, value in asked.items() if stored[key] != value]
    base = read_config(directory / "config.json")
    if not is_same(base, configs.dump(plan.base, plan.own), plan.own):
        differing.append("the base experiment")
    if differing:
        shown = "; ".join(
            f"{key}: stored {stored[key]}, asked {plan.facts[key]}"
            if key in ("name", "metric", "baseline", "seeds", "axes")
            else key
            for key in differing
        )
        raise ConfigError(f"{directory} holds a study that differs in: {shown}.")


def is_same(old: str, new: str, own: ModuleType | None) -> bool:
    """Whether two stored configurations are the same; older ones may hold relative paths."""
    if old == new:
        return True
    try:
        config = configs.load(old, allow=sorted(references.modules_of(new)), own=own)
    except ConfigError:
        return False
    return configs.dump(config, own) == new
