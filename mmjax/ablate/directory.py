"""The directory of a study: what makes it, written once, and what may go on there."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax import config as configs
from mmjax.ablate.run import Plan
from mmjax.config import ConfigError
from mmjax.train import report

STARTED = {"provenance.json", "config.json", "experiment.py"}
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
    path = directory / "provenance.json"
    past = json.loads(path.read_text()) if path.is_file() else []
    report.write_json(path, [*past, record])
    if past:
        return
    (directory / "config.json").write_text(configs.dump(plan.base, plan.own))
    if source is not None:
        shutil.copyfile(source, directory / "experiment.py")
    report.write_json(directory / "study.json", plan.facts)


def check(plan: Plan, directory: Path, *, resume: bool) -> None:
    """Refuses a directory that holds anything but this very study, to be resumed.

    Raises:
      ConfigError: naming what differs.
    """
    if not directory.exists() or not any(directory.iterdir()):
        return
    if not (directory / "study.json").is_file():
        if resume and {p.name for p in directory.iterdir()} <= STARTED:
            return
        raise ConfigError(f"{directory} is not empty and holds no study; choose another --workdir.")
    if not resume:
        raise ConfigError(
            f"{directory} already holds a study; add --resume to continue it, or choose another "
            "--workdir."
        )
    stored = json.loads((directory / "study.json").read_text())
    asked = {k: v for k, v in plan.facts.items() if k in stored or k != "base"}  # older lack it
    differing = [key for key, value in asked.items() if stored.get(key) != value]
    if (directory / "config.json").read_text() != configs.dump(plan.base, plan.own):
        differing.append("the base experiment")
    if differing:
        shown = "; ".join(
            f"{key}: stored {stored[key]}, asked {plan.facts[key]}"
            if key in ("name", "metric", "baseline", "seeds", "axes")
            else key
            for key in differing
        )
        raise ConfigError(f"{directory} holds a study that differs in: {shown}.")
