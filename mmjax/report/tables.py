"""Tables of a study's results, as cells of text that `render` formats."""

import textwrap
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from mmjax.report import data_frames, number_format
from mmjax.report import study_results as records
from mmjax.report.study_results import StudyRecord
from mmjax.report.table_cells import (
    Cell,
    Column,
    explain_scores,
    format_metric_title,
    list_arm_labels,
    list_distinct_labels,
    make_cost_columns,
    make_difference_columns,
    make_interval_cells,
    make_label_cells,
    make_number_cells,
    make_score_cells,
    make_score_columns,
    make_text_cells,
    shorten_axis_names,
)

_MAX_INTERVAL_COLUMNS = 5  # largest number of columns of a grid whose cells show intervals


class Table(NamedTuple):
    """Table of a report.

    Attributes:
      name: a short name for files.
      title: what the table shows.
      header: names of the columns.
      rows: the cells.
      texts: number of columns, the first ones, that hold words.
      note: how to read the table.
      rule: index of the row above which a line is drawn; 0 for no line.
      order: the column by which the rows are sorted, and "ascending" or "descending"; None if they
        are not sorted.
    """

    name: str
    title: str
    header: list[str]
    rows: list[list[Cell]]
    texts: int
    note: str = ""
    rule: int = 0
    order: tuple[int, str] | None = None


def make_result_tables(record: StudyRecord) -> list[Table]:
    """Returns all tables of results that apply to the study."""
    candidates = [
        make_arms_table(record),
        make_grid_table(record),
        make_tests_table(record),
        _make_folds_table(record),
        _make_fusion_gains_table(record),
        _make_other_metrics_table(record),
        make_missing_table(record),
    ]
    return [table for table in candidates if table is not None and table.rows]


def make_arms_table(record: StudyRecord) -> Table:
    """Makes the table of one metric per task, Δm, the mean rank and the costs of every arm."""
    columns = make_score_columns(record, records.choose_main_metrics(record))
    note = explain_scores(record)
    try:
        delta_m = data_frames.compute_delta_m(record)
    except ValueError as error:
        delta_m, note = None, f"{note} No Δm: {error}"
    if delta_m is not None:
        columns["Δm % ↑"] = make_interval_cells(delta_m, record.overlap)
        note += " Δm: mean relative gain over the tasks' single-task arms."
    ranks = data_frames.compute_mean_ranks(record)
    if ranks is not None:
        columns["mean rank ↓"] = make_number_cells(ranks, 1)
        note += (
            f" Mean rank: on {format_metric_title(record, record.metric)[:-2]}, the mean over the "
            f"{record.unit}s that all arms have of an arm's rank within the {record.unit} (1 is "
            "best; ties share their mean)."
        )
    cost_columns = make_cost_columns(record)
    note += " Costs are per training." if cost_columns else ""
    return _make_table_by_arm(record, "arms", "Test split", columns | cost_columns, note)


def make_main_table(record: StudyRecord) -> Table:
    """Makes the table of the primary metric and one metric per task of every arm with results."""
    columns = make_score_columns(record, records.choose_main_metrics(record))
    note = explain_scores(record, bold=False)
    return _make_table_by_arm(record, "results", "Test split", columns, note)


def make_grid_table(record: StudyRecord) -> Table | None:
    """Makes the table of the primary metric over the axes of a study that has exactly two."""
    if len(record.axes) != 2:
        return None
    arm_of = {}
    for arm in records.select_arms_by_role(record, "arm"):
        row_label, column_label = list_arm_labels(record, arm)
        arm_of[row_label, column_label] = arm
    row_labels, column_labels = list_distinct_labels(arm_of)
    if min(len(row_labels), len(column_labels)) < 2:
        return None
    cells = make_score_cells(record, record.metric)
    if len(column_labels) > _MAX_INTERVAL_COLUMNS:
        cells = {arm: c._replace(text=c.text.partition(" ±")[0]) for arm, c in cells.items()}
    rows = []
    for label in row_labels:
        row = [cells.get(arm_of.get((label, other), ""), Cell()) for other in column_labels]
        rows.append([Cell(label, label), *row])
    row_axis, column_axis = shorten_axis_names(record)
    what = (
        f"{format_metric_title(record, record.metric)}: {row_axis} (rows) × {column_axis} (columns)"
    )
    note = "Bold and marks as in the first table."
    return Table("grid", what, [row_axis, *column_labels], rows, 1, note)


def make_tests_table(record: StudyRecord) -> Table | None:
    """Makes the table of paired tests of the primary metric against the baseline, if there are any.

    Returns None if no test can be computed.
    """
    summary = data_frames.summarize_arms(record, record.metric)
    others = summary.drop(index=record.baseline, errors="ignore")
    note = (
        f"Difference: mean ± half the 95% interval over the common {record.unit}s. p: two-sided "
        "paired t-test; then with Holm's correction over the rows."
    )
    if others.p.isna().all():
        return None
    what = f"{format_metric_title(record, record.metric)} against {record.baseline}"
    columns = make_difference_columns(others.dropna(subset="difference"), record.unit)
    return _make_table_by_arm(record, "tests", what, columns, note)


def _make_folds_table(record: StudyRecord) -> Table | None:
    """Makes the table of the primary metric on every fold, if the study has folds."""
    if not record.folds:
        return None
    values = records.select_values(record, record.metric).dropna(how="all")
    flat = values.to_numpy().ravel()
    places = number_format.choose_column_decimals(flat, np.full_like(flat, np.nan))
    columns: dict[str, Column] = {}
    for fold, column in values.items():
        columns[f"fold {fold}"] = make_number_cells(column.dropna(), places)
    seeds = f" Means over {len(record.seeds)} seeds." if len(record.seeds) > 1 else ""
    note = f"The fold that is the test split; the baseline is {record.baseline}.{seeds}"
    what = f"{format_metric_title(record, record.metric)} on every fold"
    return _make_table_by_arm(record, "folds", what, columns, note)


def _make_fusion_gains_table(record: StudyRecord) -> Table | None:
    """Makes the table of paired tests of the primary metric against the best single modality."""
    comparison = data_frames.compute_fusion_gains(record)
    if comparison is None or comparison[1].p.isna().all():
        return None
    strongest, frame = comparison
    note = (
        f"{strongest} is the single-modality arm with the best test mean. Difference and p as in "
        "the tests against the baseline."
    )
    what = f"{format_metric_title(record, record.metric)}: gain over the best single modality"
    columns = make_difference_columns(frame, record.unit)
    return _make_table_by_arm(record, "fusion_gains", what, columns, note)


def _make_other_metrics_table(record: StudyRecord) -> Table:
    """Makes the table of the remaining test metrics."""
    main = {*records.choose_main_metrics(record)}
    columns: dict[str, Column] = {}
    for metric in record.directions:
        if metric not in main and metric.rpartition("/")[2] != "loss":
            column = make_score_cells(record, metric)
            if column:
                columns[format_metric_title(record, metric)] = column
    note = "Intervals, bold and marks as in the first table."
    return _make_table_by_arm(record, "metrics", "Other test metrics", columns, note)


def make_missing_table(record: StudyRecord) -> Table:
    """Makes the table of what is missing: failed and unfinished arms, seeds, undefined metrics."""
    texts = []
    for arm, error in record.errors.items():
        texts.append((arm, "failed", textwrap.shorten(error, 160)))
    for arm in records.find_unfinished_arms(record):
        texts.append((arm, "no results yet", ""))
    for metric in records.choose_main_metrics(record):
        for arm in records.find_undefined_arms(record, metric):
            texts.append((arm, "left out", f"{metric} is undefined (NaN) for some of its seeds"))
    planned: dict[str, Iterable[int]] = {"seed": record.seeds}
    if record.folds:
        planned["fold"] = range(record.folds)
    for unit, numbers in planned.items():
        for arm, missing in _find_missing_units(record, unit, numbers).items():
            texts.append((arm, "incomplete", f"no results of {unit}s {', '.join(missing)}"))
    rows = list(map(make_text_cells, texts))
    return Table("gaps", "Failed and missing", ["arm", "state", "why"], rows, 3)


def _find_missing_units(
    record: StudyRecord, unit: str, planned: Iterable[int]
) -> dict[str, list[str]]:
    """Finds the seeds or folds without test results, of the arms that have some and no error."""
    test = record.frame[record.frame.split == "test"]
    missing = {}
    for arm, known in test.groupby("arm")[unit].unique().items():
        lacking = [str(number) for number in planned if number not in known]
        if lacking and arm not in record.errors:
            missing[str(arm)] = lacking
    return missing


def _make_table_by_arm(
    record: StudyRecord, name: str, what: str, columns: Mapping[str, Column], note: str
) -> Table:
    """Makes a table of columns {arm: cell}: the arms that any column has, then the baselines.

    The arms are sorted by the mean of the primary metric, the best one first.
    """
    known = set().union(*columns.values())
    arms: list[list[Cell]] = []
    baselines: list[list[Cell]] = []
    for arm in filter(known.__contains__, records.sort_best_first(record)):
        cells = [column.get(arm, Cell()) for column in columns.values()]
        rows = arms if record.arms[arm].role == "arm" else baselines
        rows.append([*make_label_cells(record, arm), *cells])
    label_header = shorten_axis_names(record) or ["arm"]
    rule = len(arms) if arms and baselines else 0
    primary = format_metric_title(record, record.metric)
    order = None
    if primary in columns:
        way = "descending" if records.is_larger_better(record, record.metric) else "ascending"
        order = len(label_header) + list(columns).index(primary), way
    header = [*label_header, *columns]
    return Table(name, what, header, arms + baselines, len(label_header), note, rule, order)
