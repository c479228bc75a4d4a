"""Reads a study from its directory: its plan, its numbers, and the arms that failed."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import pandas as pd

from mmjax import files, provenance
from mmjax.files.run_files import check_arm_names, read_config_file
from mmjax.runs import stored_settings
from mmjax.runs.read import extract_error_line
from mmjax.study import results, write_results

_Direction = Literal["max", "min"]

_UNIT_INTERVAL_METRICS = ("accuracy", "_f1", "_iou")  # name endings of metrics between 0 and 1
_NONNEGATIVE_METRICS = ("mae", "rmse", "_error")  # name endings of metrics that are not negative
_UPPER_BOUNDS = {"r2": 1.0, "kappa": 1.0}  # largest values


class PlannedArm(NamedTuple):
    """One arm as `study.json` describes it.

    Attributes:
      labels: {axis: label}.
      role: "arm", or the kind of baseline made from the base experiment.
      of: the task or modality of such a baseline.
      changes: {path: value as text} of what differs from the base experiment.
    """

    labels: Mapping[str, str]
    role: Literal["arm", "single_task", "single_modality"]
    of: str | None
    changes: Mapping[str, str]


class StudyRecord(NamedTuple):
    """Current state of a study.

    Attributes:
      name: the name of the study.
      metric: the primary metric, "TASK/METRIC".
      directions: {metric: "max" if larger values are better, else "min"}.
      baseline: the arm that the others are tested against.
      seeds: the seeds of every arm.
      axes: the names of the axes.
      tasks: the names of the tasks.
      arms: {name: arm}, in the study's order.
      frame: the numbers, as `mmjax.study.load` returns them.
      errors: {arm: first line of its error}.
      base: data, examples, epochs and batch size of the base experiment, as far as recorded.
      settings: {path: value as text} that the configuration of the base experiment sets.
      starts: records of the starts, as `mmjax.provenance.make_record` makes them.
    """

    name: str
    metric: str
    directions: Mapping[str, _Direction]
    baseline: str
    seeds: tuple[int, ...]
    axes: tuple[str, ...]
    tasks: tuple[str, ...]
    arms: Mapping[str, PlannedArm]
    frame: pd.DataFrame
    errors: Mapping[str, str]
    base: Mapping[str, Any] = MappingProxyType({})
    settings: Mapping[str, str] = MappingProxyType({})
    starts: Sequence[Mapping[str, Any]] = ()


def read_study(directory: str | Path) -> StudyRecord:
    """Reads the study in a directory.

    Raises:
      ValueError: if the directory holds no study, or a damaged one.
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
            errors=_read_errors(directory, arms),
            base=plan.get("base", {}),
            settings=_read_settings(directory / "config.json"),
            starts=_read_starts(directory),
        )
        if not isinstance(record.metric, str) or not all(
            isinstance(seed, int) for seed in record.seeds
        ):
            raise ValueError("its metric or its seeds are of the wrong type")
    if record.baseline not in arms:
        raise ValueError(
            f"{path} names the baseline {record.baseline!r}, which is not one of its arms."
        )
    return record._replace(frame=_load_numbers(directory, record))


def _load_numbers(directory: Path, record: StudyRecord) -> pd.DataFrame:
    """Loads results.parquet; if it is damaged, rewrites it from the files of the arms."""
    try:
        return results.load(directory)
    except files.DamagedFileError as error:
        if not any(directory.glob("arms/*/result.json")):
            raise
        logging.getLogger("mmjax").warning("%s It is rewritten from the files of the arms.", error)
        labels = {name: arm.labels for name, arm in record.arms.items()}
        write_results.write_results(directory, labels, record.axes)
        return results.load(directory)


def select_values(record: StudyRecord, metric: str, split: str = "test") -> pd.DataFrame:
    """Selects a metric, arms × seeds; NaN if a seed was not run or the arm lacks the metric.

    An arm whose metric is undefined (NaN) for some of its seeds is NaN for all: the mean over the
    other seeds would be biased in its favor. Single-task arms are NaN for metrics over all tasks,
    such as the loss, because theirs covers one task only.
    """
    rows = record.frame[(record.frame.split == split) & (record.frame.metric == metric)]
    table = rows.pivot_table(index="arm", columns="seed", values="value", aggfunc="last")
    table = table.reindex(index=list(record.arms), columns=list(record.seeds)).astype(float)
    table.loc[find_undefined_arms(record, metric, split)] = float("nan")
    if len(record.tasks) > 1 and get_task_of_metric(metric) not in record.tasks:
        table.loc[select_arms_by_role(record, "single_task")] = float("nan")
    return table


def find_undefined_arms(record: StudyRecord, metric: str, split: str = "test") -> list[str]:
    """Returns the arms whose metric is NaN for some seed that was run."""
    frame = record.frame
    rows = frame[(frame.split == split) & (frame.metric == metric) & frame.value.isna()]
    return [arm for arm in record.arms if (rows.arm == arm).any()]


def select_curve(record: StudyRecord, arm: str, metric: str, split: str) -> pd.DataFrame:
    """Selects a metric of one arm over training, steps × seeds, at steps that all seeds have."""
    frame = record.frame
    rows = frame[(frame.arm == arm) & (frame.split == split) & (frame.metric == metric)]
    return rows.pivot_table(index="step", columns="seed", values="value").dropna()


def select_cost(record: StudyRecord, metric: str) -> pd.Series:
    """Selects a cost of every arm, the mean over its seeds; NaN if it is unknown."""
    rows = record.frame[(record.frame.split == "cost") & (record.frame.metric == metric)]
    return rows.groupby("arm").value.mean().reindex(list(record.arms))


def choose_task_metrics(record: StudyRecord) -> list[str]:
    """Returns one metric per task: the primary metric for its task, else the task's first one."""
    chosen = []
    for task in record.tasks:
        if get_task_of_metric(record.metric) == task:
            chosen.append(record.metric)
            continue
        metrics = [
            m
            for m in record.directions
            if get_task_of_metric(m) == task and not m.endswith("/loss")
        ]
        chosen += metrics[:1]
    return chosen


def choose_main_metrics(record: StudyRecord) -> list[str]:
    """Returns the primary metric, if it covers all tasks, and one metric per task."""
    chosen = choose_task_metrics(record)
    return chosen if record.metric in chosen else [record.metric, *chosen]


def get_task_of_metric(metric: str) -> str:
    """Returns the task of "TASK/METRIC"; "" for a metric over all tasks.

    Example:
      >>> get_task_of_metric("digit/accuracy")
      'digit'
    """
    return metric.rpartition("/")[0]


def is_larger_better(record: StudyRecord, metric: str) -> bool:
    """Returns whether larger values of the metric are better."""
    return record.directions[metric] == "max"


def get_metric_bounds(metric: str) -> tuple[float, float]:
    """Returns the range of values that a metric or logged quantity can have.

    Example:
      >>> get_metric_bounds("digit/accuracy")
      (0.0, 1.0)
    """
    name = metric.rpartition("/")[2]
    if metric.startswith("cosine/"):
        return -1.0, 1.0
    if name == "conflicts" or name.endswith(_UNIT_INTERVAL_METRICS):
        return 0.0, 1.0
    return (
        (0.0, math.inf)
        if name.endswith(_NONNEGATIVE_METRICS)
        else (-math.inf, _UPPER_BOUNDS.get(name, math.inf))
    )


def select_arms_by_role(record: StudyRecord, role: str) -> list[str]:
    """Returns the arms with a role, in the study's order."""
    return [name for name, arm in record.arms.items() if arm.role == role]


def find_unfinished_arms(record: StudyRecord) -> list[str]:
    """Returns the arms that have neither test results nor an error."""
    tested = set(record.frame.arm[record.frame.split == "test"])
    return [arm for arm in record.arms if arm not in tested and arm not in record.errors]


def _parse_arm(plan: Mapping[str, Any]) -> PlannedArm:
    return PlannedArm(plan["labels"], plan["role"], plan.get("of"), plan.get("changes", {}))


def _read_errors(directory: Path, arms: Mapping[str, PlannedArm]) -> dict[str, str]:
    paths = {arm: directory / "arms" / arm / "error.txt" for arm in arms}
    return {arm: extract_error_line(files.read_text(p)) for arm, p in paths.items() if p.is_file()}


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
