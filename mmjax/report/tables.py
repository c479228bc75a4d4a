"""Tables of a study's results, as cells of text that `render` formats."""

import textwrap
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mmjax.report import data_frames
from mmjax.report import study_results as records
from mmjax.report.study_results import Record
from mmjax.report.table_cells import (
    Cell,
    Column,
    axis_names,
    costs,
    differences,
    how_to_read,
    names,
    number,
    over_seeds,
    scores,
    title,
)

WIDEST = 5  # largest number of columns of a grid whose cells show intervals


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


def tables(record: Record) -> list[Table]:
    """Returns all tables of results that apply to the study."""
    candidates = [
        arms(record),
        grid(record),
        tests(record),
        gains(record),
        others(record),
        gaps(record),
    ]
    return [table for table in candidates if table is not None and table.rows]


def arms(record: Record) -> Table:
    """Makes the table of one metric per task, Δm, the mean rank and the costs of every arm."""
    columns = {title(record, m): scores(record, m) for m in records.main_metrics(record)}
    note = how_to_read(record)
    try:
        delta_m = data_frames.delta_m(record)
    except ValueError as error:
        delta_m, note = None, f"{note} No Δm: {error}"
    if delta_m is not None:
        columns["Δm % ↑"] = over_seeds(delta_m)
        note += " Δm: mean relative gain over the tasks' single-task arms."
    ranks = data_frames.mean_ranks(record)
    if ranks is not None:
        columns["mean rank ↓"] = {str(arm): number(rank, 1) for arm, rank in ranks.items()}
        note += (
            f" Mean rank: on {title(record, record.metric)[:-2]}, the mean over the seeds that all "
            "arms have of an arm's rank within the seed (1 is best; ties share their mean)."
        )
    cost_columns = costs(record)
    note += " Costs are per training." if cost_columns else ""
    return by_arm(record, "arms", "Test split", columns | cost_columns, note)


def results(record: Record) -> Table:
    """Makes the table of the primary metric and one metric per task of every arm with results."""
    columns = {title(record, m): scores(record, m) for m in records.main_metrics(record)}
    note = how_to_read(record, bold=False)
    return by_arm(record, "results", "Test split", columns, note)


def grid(record: Record) -> Table | None:
    """Makes the table of the primary metric over the axes of a study that has exactly two."""
    if len(record.axes) != 2:
        return None
    arm_of = {
        tuple(cell.text for cell in names(record, arm)): arm
        for arm in records.with_role(record, "arm")
    }
    row_labels, column_labels = (list(dict.fromkeys(pair[i] for pair in arm_of)) for i in (0, 1))
    if min(len(row_labels), len(column_labels)) < 2:
        return None
    cells = scores(record, record.metric)
    if len(column_labels) > WIDEST:
        cells = {arm: c._replace(text=c.text.partition(" ±")[0]) for arm, c in cells.items()}
    rows = []
    for label in row_labels:
        row = [cells.get(arm_of.get((label, other), ""), Cell()) for other in column_labels]
        rows.append([Cell(label, label), *row])
    row_axis, column_axis = axis_names(record)
    what = f"{title(record, record.metric)}: {row_axis} (rows) × {column_axis} (columns)"
    note = "Bold and marks as in the first table."
    return Table("grid", what, [row_axis, *column_labels], rows, 1, note)


def tests(record: Record) -> Table | None:
    """Makes the table of paired tests of the primary metric against the baseline, if there are any.

    Returns None if no test can be computed.
    """
    summary = data_frames.summary(record, record.metric)
    others = summary.drop(index=record.baseline, errors="ignore")
    note = (
        "Difference: mean ± half the 95% interval over the common seeds. p: two-sided paired "
        "t-test; then with Holm's correction over the rows."
    )
    if others.p.isna().all():
        return None
    what = f"{title(record, record.metric)} against {record.baseline}"
    columns = differences(others.dropna(subset="difference"))
    return by_arm(record, "tests", what, columns, note)


def gains(record: Record) -> Table | None:
    """Makes the table of paired tests of the primary metric against the best single modality."""
    comparison = data_frames.fusion_gains(record)
    if comparison is None or comparison[1].p.isna().all():
        return None
    strongest, frame = comparison
    note = (
        f"{strongest} is the single-modality arm with the best test mean. Difference and p as in "
        "the tests against the baseline."
    )
    what = f"{title(record, record.metric)}: gain over the best single modality"
    return by_arm(record, "fusion_gains", what, differences(frame), note)


def others(record: Record) -> Table:
    """Makes the table of the remaining test metrics."""
    main = {*records.main_metrics(record)}
    columns: dict[str, Column] = {}
    for metric in record.directions:
        if metric not in main and metric.rpartition("/")[2] != "loss":
            column = scores(record, metric)
            if column:
                columns[title(record, metric)] = column
    note = "Intervals, bold and marks as in the first table."
    return by_arm(record, "metrics", "Other test metrics", columns, note)


def gaps(record: Record) -> Table:
    """Makes the table of what is missing: failed and unfinished arms, seeds, undefined metrics."""
    texts = [(arm, "failed", textwrap.shorten(error, 160)) for arm, error in record.errors.items()]
    texts += [(arm, "no results yet", "") for arm in records.unfinished(record)]
    for metric in records.main_metrics(record):
        for arm in records.undefined(record, metric):
            texts.append((arm, "left out", f"{metric} is undefined (NaN) for some of its seeds"))
    test = record.frame[record.frame.split == "test"]
    for arm, seeds in test.groupby("arm").seed.unique().items():
        missing = [str(seed) for seed in record.seeds if seed not in seeds]
        if missing and arm not in record.errors:
            texts.append((str(arm), "incomplete", f"no results of seeds {', '.join(missing)}"))
    rows = [[Cell(text, text) for text in row] for row in texts]
    return Table("gaps", "Failed and missing", ["arm", "state", "why"], rows, 3)


def by_arm(record: Record, name: str, what: str, columns: Mapping[str, Column], note: str) -> Table:
    """Makes a table of columns {arm: cell}: the arms that any column has, then the baselines.

    The arms are sorted by the mean of the primary metric, the best one first.
    """
    known = [a for a in best_first(record) if any(a in column for column in columns.values())]
    arms = [arm for arm in known if record.arms[arm].role == "arm"]
    baselines = [arm for arm in known if record.arms[arm].role != "arm"]
    rows = [
        names(record, arm) + [column.get(arm, Cell()) for column in columns.values()]
        for arm in arms + baselines
    ]
    label_header = axis_names(record) or ["arm"]
    rule = len(arms) if arms and baselines else 0
    primary = title(record, record.metric)
    order = None
    if primary in columns:
        way = "descending" if records.larger_is_better(record, record.metric) else "ascending"
        order = len(label_header) + list(columns).index(primary), way
    header = [*label_header, *columns]
    return Table(name, what, header, rows, len(label_header), note, rule, order)


def best_first(record: Record) -> list[str]:
    """Returns the arms by their means of the primary metric, the best first; NaN comes last."""
    means = records.values(record, record.metric).mean(axis=1)
    signed = -means if records.larger_is_better(record, record.metric) else means
    order = np.argsort(signed.to_numpy(), kind="stable")  # NaN comes last
    return [str(means.index[i]) for i in order]
