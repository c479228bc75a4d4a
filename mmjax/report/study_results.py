"""Results of a study: its plan, its numbers, and the arms that failed."""

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

MAX_SHOWN_ARMS = 40
"""Rows of a table, and arms of a figure, beyond which only the best ones are shown."""

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
      folds: number of folds of every arm; 0 if the study has none.
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
    folds: int = 0

    @property
    def overlap(self) -> float:
        """Test examples per training example if the study has folds; see `statistics`."""
        sizes = self.base.get("examples", {})
        return sizes["test"] / sizes["train"] if self.folds else 0.0

    @property
    def unit(self) -> str:
        """What the statistics count, "seed" or "fold"."""
        return "fold" if self.folds else "seed"


def select_values(record: StudyRecord, metric: str, split: str = "test") -> pd.DataFrame:
    """Selects a metric, arms × seeds; NaN if a seed was not run or the arm lacks the metric.

    If the study has folds it is arms × folds: the mean over the seeds, NaN unless all were run.

    An arm whose metric is undefined (NaN) for some of its seeds is NaN for all: the mean over the
    other seeds would be biased in its favor. Single-task arms are NaN for metrics over all tasks,
    such as the loss, because theirs covers one task only.
    """
    rows = record.frame[(record.frame.split == split) & (record.frame.metric == metric)]
    columns = ["fold", "seed"] if record.folds else "seed"
    table = rows.pivot_table(index="arm", columns=columns, values="value", aggfunc="last")
    table = table.reindex(index=list(record.arms), columns=list_replicas(record)).astype(float)
    table = average_seeds(record, table)
    table.loc[find_undefined_arms(record, metric, split)] = float("nan")
    if len(record.tasks) > 1 and get_task_of_metric(metric) not in record.tasks:
        table.loc[select_arms_by_role(record, "single_task")] = float("nan")
    return table


def list_replicas(record: StudyRecord) -> list[Any]:
    """Lists the seeds of an arm, or (fold, seed) if the study has folds."""
    return list(
        itertools.product(range(record.folds), record.seeds) if record.folds else record.seeds
    )


def average_seeds(record: StudyRecord, table: pd.DataFrame) -> pd.DataFrame:
    """Returns the means over seeds of columns (fold, seed), one column per fold; NaN stays NaN.

    The columns are seeds, and do not change, if the study has no folds.
    """
    if not record.folds:
        return table
    means = {}
    for fold in dict.fromkeys(fold for fold, _ in table):
        means[fold] = table[fold].mean(axis=1, skipna=False)
    return pd.concat(means, axis=1)


def find_undefined_arms(record: StudyRecord, metric: str, split: str = "test") -> list[str]:
    """Returns the arms whose metric is NaN for some seed that was run."""
    frame = record.frame
    rows = frame[(frame.split == split) & (frame.metric == metric) & frame.value.isna()]
    undefined = set(rows.arm)
    return [arm for arm in record.arms if arm in undefined]


def select_curves(
    record: StudyRecord, arms: Collection[str], metric: str, split: str
) -> dict[str, pd.DataFrame]:
    """Selects {arm: a metric over training, steps × seeds}, at steps that all its seeds have.

    If the study has folds they are steps × folds: the means over the seeds.
    """
    frame = record.frame[(record.frame.split == split) & (record.frame.metric == metric)]
    columns = ["fold", "seed"] if record.folds else "seed"
    curves = {}
    for arm, rows in frame[frame.arm.isin(arms)].groupby("arm"):
        curve = rows.pivot_table(index="step", columns=columns, values="value").dropna()
        curves[str(arm)] = average_seeds(record, curve) if len(curve) else curve
    return {arm: curves[arm] for arm in arms if arm in curves}


def sort_best_first(record: StudyRecord) -> list[str]:
    """Returns the arms by their means of the primary metric, the best first; NaN comes last."""
    means = select_values(record, record.metric).mean(axis=1)
    signed = -means if is_larger_better(record, record.metric) else means
    order = np.argsort(signed.to_numpy(), kind="stable")  # NaN comes last
    return [str(means.index[i]) for i in order]


def select_shown_arms(record: StudyRecord, names: Iterable[str]) -> list[str]:
    """Selects the arms that figures show: all, or of too many the best and the baselines.

    Args:
      record: the study.
      names: the arms to select from.
    """
    names = list(names)
    if len(names) <= MAX_SHOWN_ARMS:
        return names
    best_first = filter(set(names).__contains__, sort_best_first(record))
    best = set(itertools.islice(best_first, MAX_SHOWN_ARMS))
    always = set(record.arms) - set(select_arms_by_role(record, "arm")) | {record.baseline}
    return [arm for arm in names if arm in best | always]


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
    tested = set(record.frame.arm[record.frame.split == "test"])  # on some fold, if it has folds
    return [arm for arm in record.arms if arm not in tested and arm not in record.errors]
