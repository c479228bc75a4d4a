"""What a study's directory holds, read back: its plan, its numbers, the arms that failed."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import pandas as pd

from mmjax import files, provenance
from mmjax.runs import stored_settings
from mmjax.runs.read import first_line
from mmjax.runs.run_files import check_arms, read_config
from mmjax.study import results, write_results

Direction = Literal["max", "min"]

SHARES = ("accuracy", "_f1", "_iou")  # ends of names of metrics between 0 and 1
ERRORS = ("mae", "rmse", "_error")  # of metrics of 0 and more
BEST = {"r2": 1.0, "kappa": 1.0}


class Arm(NamedTuple):
    """One arm as it was planned.

    Attributes:
      labels: {axis: its label there}.
      role: "arm", or a baseline made from the base experiment.
      of: the one task or modality of such a baseline.
      changes: {path: value as text}, what was set.
    """

    labels: Mapping[str, str]
    role: Literal["arm", "single_task", "single_modality"]
    of: str | None
    changes: Mapping[str, str]


class Record(NamedTuple):
    """A study as it stands.

    Attributes:
      name: of the study.
      metric: the primary metric, "TASK/METRIC".
      directions: {metric: whether more of it is better ("max") or less ("min")}.
      baseline: the arm that the others are tested against.
      seeds: the seeds of every arm.
      axes: the names of the axes.
      tasks: the names of the tasks.
      arms: {name: arm}, in the study's order.
      frame: the numbers, as `results.load` gives them.
      errors: {arm: first line of what stopped it}.
      base: what is known of the base experiment: its data, examples, epochs and batch size.
      settings: {path: value as text} that the base experiment's configuration sets.
      starts: records of the starts, as `mmjax.provenance.record` makes them.
    """

    name: str
    metric: str
    directions: Mapping[str, Direction]
    baseline: str
    seeds: tuple[int, ...]
    axes: tuple[str, ...]
    tasks: tuple[str, ...]
    arms: Mapping[str, Arm]
    frame: pd.DataFrame
    errors: Mapping[str, str]
    base: Mapping[str, Any] = MappingProxyType({})
    settings: Mapping[str, str] = MappingProxyType({})
    starts: Sequence[Mapping[str, Any]] = ()


def read(directory: Path) -> Record:
    """The study in a directory.

    Raises:
      ValueError: there is none, or a damaged one.
    """
    path = directory / "study.json"
    if not path.is_file():
        raise ValueError(f"{directory} holds no study: it has no study.json.")
    plan = files.read_json(path)
    with files.naming_damage(path):
        check_arms(plan["arms"])
        arms = {name: _arm(arm) for name, arm in plan["arms"].items()}
        record = Record(
            name=plan["name"],
            metric=plan["metric"],
            directions={**plan["directions"], plan["metric"]: plan["direction"]},
            baseline=plan["baseline"],
            seeds=tuple(plan["seeds"]),
            axes=tuple(plan["axes"]),
            tasks=tuple(plan["tasks"]),
            arms=arms,
            frame=pd.DataFrame(),
            errors=_errors(directory, arms),
            base=plan.get("base", {}),
            settings=_settings(directory / "config.json"),
            starts=_starts(directory),
        )
        if not isinstance(record.metric, str) or not all(
            isinstance(seed, int) for seed in record.seeds
        ):
            raise ValueError("its metric or its seeds are of the wrong type")
    if record.baseline not in arms:
        raise ValueError(f"{path} names the baseline {record.baseline!r}, which is no arm of it.")
    return record._replace(frame=_numbers(directory, record))


def _numbers(directory: Path, record: Record) -> pd.DataFrame:
    """Loads results.parquet, which is written again from the arms' files if it is damaged."""
    try:
        return results.load(directory)
    except files.DamagedFileError as error:
        if not any(directory.glob("arms/*/result.json")):
            raise
        logging.getLogger("mmjax").warning("%s It is written again.", error)
        labels = {name: arm.labels for name, arm in record.arms.items()}
        write_results.write(directory, labels, record.axes)
        return results.load(directory)


def values(record: Record, metric: str, split: str = "test") -> pd.DataFrame:
    """A metric, arms × seeds; NaN where a seed was not run or the arm has no such metric.

    An arm that ran but whose metric is undefined (NaN) for some of its seeds is NaN for all: the
    mean over the seeds that happened to be defined would flatter it. Nor has an arm of a single
    task a metric of all tasks, such as the loss: its own is the mean over that one task.
    """
    rows = record.frame[(record.frame.split == split) & (record.frame.metric == metric)]
    found = rows.pivot_table(index="arm", columns="seed", values="value", aggfunc="last")
    found = found.reindex(index=list(record.arms), columns=list(record.seeds)).astype(float)
    found.loc[undefined(record, metric, split)] = float("nan")
    if len(record.tasks) > 1 and task_of(metric) not in record.tasks:
        found.loc[with_role(record, "single_task")] = float("nan")
    return found


def undefined(record: Record, metric: str, split: str = "test") -> list[str]:
    """The arms that ran but whose metric is NaN for some seed."""
    frame = record.frame
    rows = frame[(frame.split == split) & (frame.metric == metric) & frame.value.isna()]
    return [arm for arm in record.arms if (rows.arm == arm).any()]


def curve(record: Record, arm: str, metric: str, split: str) -> pd.DataFrame:
    """A metric of one arm over training, steps × seeds, as far as all of its seeds go."""
    frame = record.frame
    rows = frame[(frame.arm == arm) & (frame.split == split) & (frame.metric == metric)]
    return rows.pivot_table(index="step", columns="seed", values="value").dropna()


def cost(record: Record, metric: str) -> pd.Series:
    """A cost of every arm, the mean over its seeds; NaN where it is not known."""
    rows = record.frame[(record.frame.split == "cost") & (record.frame.metric == metric)]
    return rows.groupby("arm").value.mean().reindex(list(record.arms))


def task_metrics(record: Record) -> list[str]:
    """One metric a task: the primary one for its own task, else the first of the task's metrics."""
    chosen = []
    for task in record.tasks:
        own = [m for m in record.directions if task_of(m) == task and not m.endswith("/loss")]
        chosen += [record.metric] if task_of(record.metric) == task else own[:1]
    return chosen


def main_metrics(record: Record) -> list[str]:
    """The primary metric, if it is of all tasks, and one metric a task."""
    chosen = task_metrics(record)
    return chosen if record.metric in chosen else [record.metric, *chosen]


def task_of(metric: str) -> str:
    """The task of "TASK/METRIC"; a metric of all tasks has none."""
    return metric.rpartition("/")[0]


def larger_is_better(record: Record, metric: str) -> bool:
    """Whether more of the metric is better."""
    return record.directions[metric] == "max"


def bounds(metric: str) -> tuple[float, float]:
    """The least and the largest value that a metric, or a logged number of training, can have."""
    name = metric.rpartition("/")[2]
    if metric.startswith("cosine/"):
        return -1.0, 1.0
    if name == "conflicts" or name.endswith(SHARES):
        return 0.0, 1.0
    return (0.0, math.inf) if name.endswith(ERRORS) else (-math.inf, BEST.get(name, math.inf))


def with_role(record: Record, role: str) -> list[str]:
    """The arms of a role, in the study's order."""
    return [name for name, arm in record.arms.items() if arm.role == role]


def unfinished(record: Record) -> list[str]:
    """The arms that have neither test results nor an error."""
    tested = set(record.frame.arm[record.frame.split == "test"])
    return [arm for arm in record.arms if arm not in tested and arm not in record.errors]


def _arm(plan: Mapping[str, Any]) -> Arm:
    return Arm(plan["labels"], plan["role"], plan.get("of"), plan.get("changes", {}))


def _errors(directory: Path, arms: Mapping[str, Arm]) -> dict[str, str]:
    paths = {arm: directory / "arms" / arm / "error.txt" for arm in arms}
    return {arm: first_line(files.read_text(p)) for arm, p in paths.items() if p.is_file()}


def _settings(path: Path) -> Mapping[str, str]:
    """What a stored configuration sets; nothing where there is none, and damage by its name.

    The numbers can be reported without it.
    """
    try:
        return stored_settings.settings(read_config(path)) if path.is_file() else {}
    except ValueError as error:
        return {path.name: str(error)}


def _starts(directory: Path) -> Sequence[Mapping[str, Any]]:
    """The records of a study's starts; none where there is no file, and damage by its name."""
    try:
        return provenance.read(directory)
    except files.DamagedFileError as error:
        return [{"command": str(error)}]
