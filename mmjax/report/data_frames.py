"""Findings of a study as data frames, which the tables and figures show."""

import numpy as np
import pandas as pd

from mmjax.report import rank_tests, statistics
from mmjax.report import study_results as records
from mmjax.report.study_results import StudyRecord

_COST_UNITS = {
    "parameters": ("parameters", 1.0),
    "flops": ("MFLOP/step", 1e6),
    "step_seconds": ("ms/step", 1e-3),
    "peak_bytes": ("peak MiB", 2.0**20),
}


def summarize_arms(record: StudyRecord, metric: str) -> pd.DataFrame:
    """Summarizes a test metric of every arm that has it: mean, interval, test against the baseline.

    Columns: seeds, mean, half (half the 95% interval), common (seeds in common with the baseline),
    difference, difference_half, p, holm, verdict ("better", "worse" or ""), best (see
    `statistics.find_best_arms`).
    """
    values = records.select_values(record, metric)
    values = values[values.notna().any(axis=1)]
    maximize = records.is_larger_better(record, metric)
    array, overlap = values.to_numpy(), record.overlap
    mean, half = statistics.compute_intervals(array, overlap)
    frame = pd.DataFrame(
        {
            "seeds": values.notna().sum(axis=1),
            "mean": mean,
            "half": half,
            "best": statistics.find_best_arms(array, maximize=maximize, overlap=overlap),
        },
        index=values.index,
    )
    compared = _compare_with_rival(values, record.baseline, maximize=maximize, overlap=overlap)
    return frame.join(compared).fillna({"verdict": ""})


def _compare_with_rival(
    values: pd.DataFrame, rival: str, *, maximize: bool, overlap: float
) -> pd.DataFrame:
    """Compares every other arm with `rival`: difference, interval, test and verdict.

    They are NaN if the rival has no values.
    """
    columns = ["common", "difference", "difference_half", "p", "holm"]
    others = values.drop(index=rival, errors="ignore")
    comparison = statistics.compare_with_baseline(
        others.to_numpy(), values.reindex([rival]).to_numpy()[0], overlap
    )
    frame = pd.DataFrame(dict(zip(columns, comparison, strict=True)), index=others.index)
    better = (frame.difference > 0) == maximize
    frame["verdict"] = np.where(better, "better", "worse")
    return frame.assign(
        verdict=frame.verdict.where(frame.holm <= statistics.SIGNIFICANCE_LEVEL, "")
    )


def compute_fusion_gains(record: StudyRecord) -> tuple[str, pd.DataFrame] | None:
    """Returns the best single-modality arm by its test mean, and every arm's comparison with it.

    Choosing the best one by its test mean makes the gains conservative. None without such arms.
    """
    values = records.select_values(record, record.metric)
    values = values[values.notna().any(axis=1)]
    maximize = records.is_larger_better(record, record.metric)
    has_values = values.index.__contains__
    single = list(filter(has_values, records.select_arms_by_role(record, "single_modality")))
    rivals = list(filter(has_values, records.select_arms_by_role(record, "arm")))
    if not single or not rivals:
        return None
    means = values.loc[single].mean(axis=1)
    strongest = str(means.idxmax() if maximize else means.idxmin())
    values = values.loc[[strongest, *rivals]]
    return strongest, _compare_with_rival(
        values, strongest, maximize=maximize, overlap=record.overlap
    )


def compute_delta_m(record: StudyRecord) -> pd.DataFrame | None:
    """Computes Δm in percent, arms × seeds (or folds), over one metric per task.

    Returns None for a single task, or if some task has no results of a single-task arm. The first
    single-task arm of a task counts.

    Raises:
      ValueError: the mean of a single-task arm is not positive.
    """
    single_arms = _find_single_task_arms(record)
    metrics = {records.get_task_of_metric(m): m for m in records.choose_task_metrics(record)}
    tasks = [task for task in record.tasks if task in single_arms and task in metrics]
    if len(tasks) < 2 or len(tasks) < len(record.tasks):
        return None
    arms = records.select_arms_by_role(record, "arm")
    values, single, maximize = [], [], []
    for task in tasks:
        task_values = records.select_values(record, metrics[task])
        values.append(task_values.loc[arms].to_numpy())
        single.append(task_values.loc[single_arms[task]].to_numpy())
        maximize.append(records.is_larger_better(record, metrics[task]))
    # Δm needs every task's baseline: a mean over some tasks would be another quantity.
    if np.isnan(single).all(axis=1).any():
        return None
    gains = rank_tests.delta_m(np.stack(values), np.stack(single), maximize)
    return pd.DataFrame(gains, index=arms, columns=task_values.columns).dropna(how="all")


def _find_single_task_arms(record: StudyRecord) -> dict[str | None, str]:
    """Returns {task: its first single-task arm}."""
    arms: dict[str | None, str] = {}
    for arm in records.select_arms_by_role(record, "single_task"):
        arms.setdefault(record.arms[arm].of, arm)
    return arms


def _select_ranked_values(record: StudyRecord) -> pd.DataFrame:
    """Selects the primary metric of the arms that have it, on the seeds or folds of them all."""
    arms = records.select_arms_by_role(record, "arm")
    values = records.select_values(record, record.metric).loc[arms].dropna(how="all")
    return values.dropna(axis=1)


def compute_mean_ranks(record: StudyRecord) -> pd.Series | None:
    """Computes each arm's mean rank on the primary metric; None for a single arm."""
    values = _select_ranked_values(record)
    if len(values) < 2 or values.shape[1] < 1:
        return None
    maximize = records.is_larger_better(record, record.metric)
    ranks = rank_tests.rank_within_seeds(values.to_numpy(), maximize=maximize)
    return pd.Series(ranks.mean(axis=1), index=values.index)


def compute_rank_tests(record: StudyRecord) -> tuple[list[str], rank_tests.Ranks] | None:
    """Returns the ranked arms with their rank tests; None if they cannot be tested."""
    values = _select_ranked_values(record)
    if len(values) < 3 or values.shape[1] < 2:
        return None
    maximize = records.is_larger_better(record, record.metric)
    return list(values.index), rank_tests.compute_ranks(values.to_numpy(), maximize=maximize)


def collect_costs(record: StudyRecord) -> pd.DataFrame:
    """Returns the costs of every arm that are known for any arm, in the units of the columns."""
    columns = {}
    for name, (title, unit) in _COST_UNITS.items():
        columns[title] = records.select_cost(record, name) / unit
    return pd.DataFrame(columns, index=list(record.arms)).dropna(axis=1, how="all")
