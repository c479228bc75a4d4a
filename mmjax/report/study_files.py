"""Reads a study from its directory."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mmjax import files, provenance
from mmjax.files.run_files import check_arm_names, read_config_file
from mmjax.report.study_results import PlannedArm, StudyRecord
from mmjax.runs import stored_settings
from mmjax.runs.read import extract_error_line
from mmjax.study import results, write_results
from mmjax.study.folds import list_fold_homes


def read_study(directory: str | Path) -> StudyRecord:
    """Reads the study in a directory.

    Raises:
      ValueError: the directory does not hold a study, or the study is damaged.
    """
    directory = Path(directory).expanduser()
    path = directory / "study.json"
    if not path.is_file():
        raise ValueError(f"{directory} does not hold a study: it has no study.json.")
    plan = files.read_json(path)
    with files.name_damaged_file(path):
        check_arm_names(plan["arms"])
        arms = {name: _parse_arm(arm) for name, arm in plan["arms"].items()}
        record = StudyRecord(
            name=plan["name"],
            metric=plan["metric"],
            directions={**plan["directions"], plan["metric"]: plan["direction"]},
            baseline=plan["baseline"],
            seeds=tuple(plan["seeds"]),
            axes=tuple(plan["axes"]),
            tasks=tuple(plan["tasks"]),
            arms=arms,
            frame=pd.DataFrame(),
            errors=_read_errors(directory, arms, plan.get("folds", 0)),
            base=plan.get("base", {}),
            settings=_read_settings(directory / "config.json"),
            starts=_read_starts(directory),
            folds=plan.get("folds", 0),
        )
        if record.folds and not record.overlap > 0:
            raise ValueError("it has folds, but not the numbers of test and training examples")
        if not isinstance(record.metric, str) or not all(
            isinstance(seed, int) for seed in record.seeds
        ):
            raise ValueError("its metric or its seeds are of the wrong type")
    if record.baseline not in arms:
        raise ValueError(
            f"{path} names the baseline {record.baseline!r}, which is not one of its arms."
        )
    # Rows are selected by these two columns again and again, which is fast for categories.
    frame = _load_numbers(directory, record).astype({"split": "category", "metric": "category"})
    return record._replace(frame=frame)


def _load_numbers(directory: Path, record: StudyRecord) -> pd.DataFrame:
    """Loads results.parquet; if it is damaged, rewrites it from the files of the arms."""
    try:
        return results.load(directory)
    except files.DamagedFileError as error:
        if not any(directory.glob("arms/*/result.json")):
            raise
        logging.getLogger("mmjax").warning("%s It is rewritten from the files of the arms.", error)
        labels = {name: arm.labels for name, arm in record.arms.items()}
        write_results.write_results(directory, labels, record.axes, record.folds)
        return results.load(directory)


def _parse_arm(plan: Mapping[str, Any]) -> PlannedArm:
    return PlannedArm(plan["labels"], plan["role"], plan.get("of"), plan.get("changes", {}))


def _read_errors(directory: Path, arms: Mapping[str, PlannedArm], folds: int) -> dict[str, str]:
    """Reads the first line of each arm's error, on the first of its folds that has one."""
    errors: dict[str, str] = {}
    for arm in arms:
        for fold, home in list_fold_homes(directory, arm, folds):
            if arm not in errors and (home / "error.txt").is_file():
                line = extract_error_line(files.read_text(home / "error.txt"))
                errors[arm] = f"fold {fold}: {line}" if folds else line
    return errors


def _read_settings(path: Path) -> Mapping[str, str]:
    """Reads what a stored configuration sets: {} if it is missing, {file: error} if it is damaged.

    The report does not need it, so damage is shown instead of raised.
    """
    try:
        return stored_settings.parse_settings(read_config_file(path)) if path.is_file() else {}
    except ValueError as error:
        return {path.name: str(error)}


def _read_starts(directory: Path) -> Sequence[Mapping[str, Any]]:
    """Reads the records of a study's starts: [] if there are none; damage becomes a record."""
    try:
        return provenance.read_records(directory)
    except files.DamagedFileError as error:
        return [{"command": str(error)}]
