"""Writes the first files of a study's directory, and checks it before a resume."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mmjax import config as configs
from mmjax import files, provenance
from mmjax.config import ConfigError, references
from mmjax.files.run_files import read_config_file, write_config_file
from mmjax.runs.experiment_code import store_code
from mmjax.study.study_plan import StudyPlan

_START_FILES = {"provenance.json", "config.json", "experiment.py", "code", "code.json"}
"""Names of the files that a start writes before study.json."""


def start_study(
    plan: StudyPlan, directory: Path, source: Path | None, record: Mapping[str, Any]
) -> None:
    """Writes the first files of a study, or, if it is resumed, the record of this start.

    Args:
      plan: the study.
      directory: its directory.
      source: the study's file.
      record: `provenance.record`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    provenance.append_record(directory, record)
    if (directory / "study.json").is_file():
        return
    write_config_file(directory / "config.json", configs.dump_config(plan.base, plan.module))
    store_code(directory, plan.module)
    if source is not None:
        shutil.copyfile(source, directory / "experiment.py")
    files.write_json(directory / "study.json", plan.facts)


def check_study_directory(plan: StudyPlan, directory: Path, *, resume: bool) -> None:
    """Checks that a directory is empty or holds the same study, to be resumed.

    Raises:
      ConfigError: the directory cannot be used; the message names the differences.
    """
    if files.is_unused_directory(directory):
        return
    if not (directory / "study.json").is_file():
        names = {p.name for p in directory.iterdir() if not files.is_lock_file(p)}
        if resume and names <= _START_FILES:  # an earlier start was interrupted
            return
        raise ConfigError(
            f"{directory} is not empty and does not hold a study; choose another --workdir."
        )
    if not resume:
        raise ConfigError(
            f"{directory} already holds a study; add --resume to continue it, or choose another "
            "--workdir."
        )
    if differences := _describe_differences(plan, directory):
        raise ConfigError(
            f"{directory} holds a different study; choose another --workdir. Differences: "
            f"{'; '.join(differences)}."
        )


def _describe_differences(plan: StudyPlan, directory: Path) -> list[str]:
    """Describes in what a study differs from the one that a directory holds."""
    stored = files.read_json(directory / "study.json")
    differences = []
    with files.name_damaged_file(directory / "study.json"):
        for key, value in plan.facts.items():
            if key in ("base", "folds") and key not in stored:  # written by an older version
                continue
            if stored[key] != value:
                is_short = key in ("name", "metric", "baseline", "seeds", "folds", "axes")
                values = f": stored {stored[key]}, requested {value}" if is_short else ""
                differences.append(key + values)
    base = read_config_file(directory / "config.json")
    if not _is_same_config(base, configs.dump_config(plan.base, plan.module), plan.module):
        differences.append("the base experiment")
    return differences


def _is_same_config(old: str, new: str, own: ModuleType | None) -> bool:
    """Returns whether two stored configurations are equal.

    Loading resolves relative paths, which older versions stored.
    """
    if old == new:
        return True
    try:
        config = configs.load_config(
            old, allow=sorted(references.list_foreign_modules(new)), own=own
        )
    except ConfigError:
        return False
    return configs.dump_config(config, own) == new
