"""Cells and columns of a report's tables, as text with sort keys and marks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mmjax.report import data_frames, number_format, statistics
from mmjax.report import study_results as records
from mmjax.report.study_results import StudyRecord

_ARROWS = {"max": "↑", "min": "↓"}
_MARKS = {"better": "⁺", "worse": "⁻", "baseline": "°"}


class Cell(NamedTuple):
    """Cell: its text, the value by which it is sorted, whether it is bold, and its mark."""

    text: str = ""
    value: float | str = ""
    best: bool = False
    mark: str = ""


Column = Mapping[str, Cell]  # {arm: cell}


def make_text_cells(texts: Sequence[str]) -> list[Cell]:
    """Returns a row of cells of text, which are sorted by it."""
    return list(map(Cell, texts, texts))


def make_number_cells(numbers: pd.Series, places: int) -> dict[str, Cell]:
    """Returns a column of numbers, one per arm of the index."""
    return {str(arm): make_number_cell(number, places) for arm, number in numbers.items()}


def shorten_axis_names(record: StudyRecord) -> list[str]:
    """Returns the last parts of the axes' names if they are distinct, or else the whole names."""
    last = [axis.rpartition(".")[2] for axis in record.axes]
    return last if len(set(last)) == len(last) else list(record.axes)


def list_arm_labels(record: StudyRecord, arm: str) -> list[str]:
    """Lists an arm's labels, one per axis; a baseline has the name of its only part."""
    plan = record.arms[arm]
    if plan.role == "arm" and record.axes:
        return [plan.labels.get(axis, "").removesuffix("()") for axis in record.axes]
    only = f"only {plan.role.removeprefix('single_')} {plan.of}"
    return [arm if plan.role == "arm" else only, *[""] * (len(record.axes) - 1)]


def make_label_cells(record: StudyRecord, arm: str) -> list[Cell]:
    """Returns the cells of an arm's labels, one per axis."""
    return make_text_cells(list_arm_labels(record, arm))


def list_distinct_labels(pairs: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Lists the labels of the first axis and those of the second, each once, in their order.

    Example:
      >>> list_distinct_labels([("sum", "equal"), ("sum", "mgda"), ("max", "mgda")])
      (['sum', 'max'], ['equal', 'mgda'])
    """
    # The keys of dictionaries are sets that keep their order.
    first: dict[str, None] = {}
    second: dict[str, None] = {}
    for a, b in pairs:
        first[a] = second[b] = None
    return list(first), list(second)


def make_score_cells(record: StudyRecord, metric: str) -> dict[str, Cell]:
    """Returns a metric's cells: mean and interval, the best in bold, marks against the baseline."""
    summary = data_frames.summarize_arms(record, metric)
    places = number_format.choose_column_decimals(
        summary["mean"].to_numpy(), summary.half.to_numpy()
    )
    marks = summary.verdict.map(_MARKS).fillna("")
    if record.baseline in marks.index:
        marks[record.baseline] = _MARKS["baseline"]
    cells = {}
    for row in summary.itertuples():
        text = number_format.format_interval(row.mean, row.half, places)
        cells[str(row.Index)] = Cell(text, row.mean, bool(row.best), marks[row.Index])
    for arm in records.find_undefined_arms(record, metric):
        cells[arm] = Cell("undefined")
    return cells


def make_score_columns(record: StudyRecord, metrics: Iterable[str]) -> dict[str, dict[str, Cell]]:
    """Returns one column per metric: {title: cells}."""
    columns = {}
    for metric in metrics:
        columns[format_metric_title(record, metric)] = make_score_cells(record, metric)
    return columns


def make_difference_columns(comparison: pd.DataFrame, unit: str) -> dict[str, Column]:
    """Returns the columns of differences and their tests, and of how many seeds or folds."""
    count = f"{unit}s"
    halves = comparison.difference_half.to_numpy()
    places = number_format.choose_column_decimals(comparison.difference.to_numpy(), halves)
    columns: dict[str, dict[str, Cell]] = {"difference": {}, count: {}, "p": {}, "p (Holm)": {}}
    for row in comparison.itertuples():
        arm, mark = str(row.Index), _MARKS.get(str(row.verdict), "")
        text = number_format.format_interval(row.difference, row.difference_half, places)
        columns["difference"][arm] = Cell(text, row.difference, mark=mark)
        columns[count][arm] = make_number_cell(float(row.common), 0)
        columns["p"][arm] = _make_p_value_cell(row.p)
        columns["p (Holm)"][arm] = _make_p_value_cell(row.holm)
    return dict(columns)


def make_interval_cells(values: pd.DataFrame, overlap: float) -> dict[str, Cell]:
    """Returns cells of means and intervals of values, arms × seeds or folds."""
    means, halves = statistics.compute_intervals(values.to_numpy(), overlap)
    places = number_format.choose_column_decimals(means, halves)
    cells = {}
    for arm, mean, half in zip(values.index, means, halves, strict=True):
        cells[arm] = Cell(number_format.format_interval(mean, half, places), mean)
    return cells


def make_cost_columns(record: StudyRecord) -> dict[str, Column]:
    """Returns the columns of costs: integers, or with three digits of the median."""
    columns: dict[str, Column] = {}
    for name, column in data_frames.collect_costs(record).items():
        known = column.dropna()
        whole = (known == known.round()).all()
        places = (
            0 if whole else number_format.count_decimals(known[known > 0].median(), float("nan"))
        )
        columns[f"{name} ↓"] = make_number_cells(known, places)
    return columns


def make_number_cell(value: float, places: int) -> Cell:
    """Returns a cell of one number."""
    return Cell(number_format.format_fixed(value, places), value)


def _make_p_value_cell(p: float) -> Cell:
    """Returns a cell of a p-value; those without a test are sorted last."""
    return Cell(number_format.format_p_value(p), 2.0 if np.isnan(p) else p)


def format_metric_title(record: StudyRecord, metric: str) -> str:
    """Formats a metric's name with an arrow in the direction of better values."""
    return f"{metric.replace('/', ' ').replace('_', ' ')} {_ARROWS[record.directions[metric]]}"


def explain_scores(record: StudyRecord, *, bold: bool = True) -> str:
    """Returns the note below a table of scores.

    Args:
      record: the study.
      bold: whether the table has bold type.
    """
    if len(record.seeds) < 2 and not record.folds:
        return "One seed: no intervals, no tests" + (", and nothing is in bold." if bold else ".")
    best = (
        "Bold: the best, and all that it is not significantly better than (one-sided paired "
        "t-tests). "
    )
    return (
        f"Mean ± half the 95% interval (Student's t) over {_describe_units(record)}. "
        f"{best if bold else ''}{_MARKS['better']} {_MARKS['worse']}: significantly better, worse "
        f"than {_MARKS['baseline']}, the baseline {record.baseline} (two-sided). "
        "All tests at 5% with Holm's correction over the column."
    )


def _describe_units(record: StudyRecord) -> str:
    """Describes over what the intervals and the tests are."""
    if not record.folds:
        return f"{len(record.seeds)} seeds"
    seeds = f"the mean over {len(record.seeds)} seeds" if len(record.seeds) > 1 else "one seed"
    return (
        f"{record.folds} folds ({seeds} on each), corrected as the tests are for the overlap of "
        "the folds' training splits (Nadeau and Bengio, 2003)"
    )
