"""Tables of a report that compare arms on single test examples."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmjax.report import number_format, statistics
from mmjax.report import study_results as records
from mmjax.report.example_statistics import CONDITION_NOTE
from mmjax.report.study_results import StudyRecord
from mmjax.report.table_cells import Cell, format_metric_title, make_number_cell
from mmjax.report.tables import Table
from mmjax.runs.prediction.stored_predictions import (
    ExampleComparison,
    StoredPredictions,
    compare_examples,
    read_test_predictions,
)
from mmjax.study.folds import list_fold_homes


def make_example_tables(record: StudyRecord, directory: Path) -> list[Table]:
    """Makes the tables of arms whose predictions are stored, against the baseline.

    There are none without stored predictions of the baseline, or if the primary metric is not one
    of `compare_examples`.
    """
    compared = dict(_compare_arms(record, directory))
    if not compared:
        return []
    tables = [_make_bootstrap_table(record, compared)]
    if any(comparison.mcnemar for comparison in compared.values()):
        tables.append(_make_mcnemar_table(record, compared))
    return tables


def _compare_arms(record: StudyRecord, directory: Path) -> Iterator[tuple[str, ExampleComparison]]:
    """Yields every arm with stored predictions of the baseline's examples, and its comparison."""
    task, _, metric = record.metric.rpartition("/")
    baseline = _read_arm(record, directory, record.baseline, task)
    for arm in record.arms if baseline is not None else ():
        other = None if arm == record.baseline else _read_arm(record, directory, arm, task)
        if other is None or baseline is None:
            continue
        if np.array_equal(other.target, baseline.target):  # else its data differ, as by an axis
            comparison = compare_examples(metric, baseline, other)
            if comparison is not None:
                yield arm, comparison


def _read_arm(
    record: StudyRecord, directory: Path, arm: str, task: str
) -> StoredPredictions | None:
    homes = [home for _, home in list_fold_homes(directory, arm, record.folds)]
    return read_test_predictions(homes, task, record.seeds)


def _make_bootstrap_table(record: StudyRecord, compared: dict[str, ExampleComparison]) -> Table:
    """Makes the table of differences with intervals over examples."""
    differences = np.array([c.bootstrap.difference for c in compared.values()])
    halves = np.array([(c.bootstrap.high - c.bootstrap.low) / 2 for c in compared.values()])
    places = number_format.choose_column_decimals(differences, halves)
    rows = []
    for arm, comparison in compared.items():
        difference, *ends = comparison.bootstrap
        low, high = (number_format.format_fixed(end, places) for end in ends)
        text = f"{number_format.format_fixed(difference, places)} [{low}, {high}]"
        cells = [Cell(text, difference), make_number_cell(float(comparison.examples), 0)]
        rows.append([Cell(arm, arm), *cells])
    title = format_metric_title(record, record.metric)
    folds = " of all folds" if record.folds else ""
    note = (
        f"Difference to {record.baseline} on the same test examples{folds}, the mean over the "
        f"seeds, with the 95% interval of a paired bootstrap over examples. {CONDITION_NOTE}"
    )
    header = ["arm", "difference", "examples"]
    return Table("examples", f"{title} on single examples", header, rows, 1, note)


def _make_mcnemar_table(record: StudyRecord, compared: dict[str, ExampleComparison]) -> Table:
    """Makes the table of McNemar's tests, per arm and seed."""
    tests = []
    for arm, comparison in compared.items():
        for seed, test in zip(record.seeds, comparison.mcnemar, strict=True):
            tests.append((arm, seed, test))
    corrected = statistics.holm(np.array([test.p for _, _, test in tests]))
    rows = []
    for (arm, seed, test), p in zip(tests, corrected, strict=True):
        cells = [Cell(arm, arm)]
        for number in (seed, test.only_second, test.only_first):
            cells.append(make_number_cell(float(number), 0))
        for p_value in (test.p, float(p)):
            cells.append(Cell(number_format.format_p_value(p_value), p_value))
        rows.append(cells)
    task = records.get_task_of_metric(record.metric)
    note = (
        f"Examples that only the arm, or only the baseline {record.baseline}, gets right. p: "
        "McNemar's exact two-sided test; then with Holm's correction over the rows. "
        f"{CONDITION_NOTE}"
    )
    header = ["arm", "seed", "only arm", "only baseline", "p", "p (Holm)"]
    return Table("mcnemar", f"{task}: right and wrong examples", header, rows, 1, note)
