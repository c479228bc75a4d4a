"""A study's findings as data frames: what the tables and the figures show."""

import numpy as np
import pandas as pd

from mmjax.report import statistics
from mmjax.report import study_results as records
from mmjax.report.study_results import Record

UNITS = {
    "parameters": ("parameters", 1.0),
    "flops": ("MFLOP/step", 1e6),
    "step_seconds": ("ms/step", 1e-3),
    "peak_bytes": ("peak MiB", 2.0**20),
}


def summary(record: Record, metric: str) -> pd.DataFrame:
    """A test metric of every arm that has it: mean, interval, test against the baseline.

    Columns: seeds, mean, half (half the 95% interval), common (seeds in common with the baseline),
    difference, difference_half, p, holm, verdict ("better", "worse" or ""), best (see
    `stats.best`).
    """
    values = records.values(record, metric)
    values = values[values.notna().any(axis=1)]
    maximize = records.larger_is_better(record, metric)
    mean, half = statistics.intervals(values.to_numpy())
    frame = pd.DataFrame(
        {
            "seeds": values.notna().sum(axis=1),
            "mean": mean,
            "half": half,
            "best": statistics.best(values.to_numpy(), maximize=maximize),
        },
        index=values.index,
    )
    return frame.join(against(values, record.baseline, maximize=maximize)).fillna({"verdict": ""})


def against(values: pd.DataFrame, rival: str, *, maximize: bool) -> pd.DataFrame:
    """Every other arm's difference to `rival`, with its interval, test and verdict.

    They are NaN where the rival has no values.
    """
    columns = ["common", "difference", "difference_half", "p", "holm"]
    others = values.drop(index=rival, errors="ignore")
    found = statistics.compare(others.to_numpy(), values.reindex([rival]).to_numpy()[0])
    frame = pd.DataFrame(dict(zip(columns, found, strict=True)), index=others.index)
    better = (frame.difference > 0) == maximize
    frame["verdict"] = np.where(better, "better", "worse")
    return frame.assign(verdict=frame.verdict.where(frame.holm <= statistics.LEVEL, ""))


def fusion_gains(record: Record) -> tuple[str, pd.DataFrame] | None:
    """The best single-modality arm by its test mean, and every arm's `against` it.

    It is the strongest rival, so that the gains are rather too small. None without such arms.
    """
    values = records.values(record, record.metric)
    values = values[values.notna().any(axis=1)]
    maximize = records.larger_is_better(record, record.metric)
    single = [a for a in records.with_role(record, "single_modality") if a in values.index]
    rivals = [a for a in records.with_role(record, "arm") if a in values.index]
    if not single or not rivals:
        return None
    means = values.loc[single].mean(axis=1)
    strongest = str(means.idxmax() if maximize else means.idxmin())
    return strongest, against(values.loc[[strongest, *rivals]], strongest, maximize=maximize)


def delta_m(record: Record) -> pd.DataFrame | None:
    """Δm in percent, arms × seeds, over one metric a task.

    It is None with one task, or where the study has no results of some single-task arm. Where
    there are several for a task, the first one counts.

    Raises:
      ValueError: a single-task arm's mean is not positive.
    """
    alone = {record.arms[arm].of: arm for arm in reversed(records.with_role(record, "single_task"))}
    chosen = {records.task_of(m): m for m in records.task_metrics(record)}
    tasks = [task for task in record.tasks if task in alone and task in chosen]
    if len(tasks) < 2 or len(tasks) < len(record.tasks):
        return None
    found = [records.values(record, chosen[task]) for task in tasks]
    single = [v.loc[alone[task]] for v, task in zip(found, tasks, strict=True)]
    if any(row.isna().all() for row in single):
        return None
    arms = records.with_role(record, "arm")
    maximize = [records.larger_is_better(record, chosen[task]) for task in tasks]
    gains = statistics.delta_m(
        np.stack([v.loc[arms].to_numpy() for v in found]), np.stack(single), maximize
    )
    return pd.DataFrame(gains, index=arms, columns=list(record.seeds)).dropna(how="all")


def ranked_values(record: Record) -> pd.DataFrame:
    """The primary metric of the arms that have it, on the seeds that all of them have."""
    arms = records.with_role(record, "arm")
    values = records.values(record, record.metric).loc[arms].dropna(how="all")
    return values.dropna(axis=1)


def mean_ranks(record: Record) -> pd.Series | None:
    """The mean over seeds of each arm's rank on the primary metric; None of a single arm."""
    values = ranked_values(record)
    if len(values) < 2 or values.shape[1] < 1:
        return None
    maximize = records.larger_is_better(record, record.metric)
    ranks = statistics.within(values.to_numpy(), maximize=maximize)
    return pd.Series(ranks.mean(axis=1), index=values.index)


def primary_ranks(record: Record) -> tuple[list[str], statistics.Ranks] | None:
    """The arms with their `mean_ranks` and tests of them; None if they cannot be tested."""
    values = ranked_values(record)
    if len(values) < 3 or values.shape[1] < 2:
        return None
    maximize = records.larger_is_better(record, record.metric)
    return list(values.index), statistics.ranks(values.to_numpy(), maximize=maximize)


def costs(record: Record) -> pd.DataFrame:
    """The costs of every arm, those that are known of any, in the units their columns name."""
    found = {shown: records.cost(record, name) / unit for name, (shown, unit) in UNITS.items()}
    return pd.DataFrame(found, index=list(record.arms)).dropna(axis=1, how="all")
