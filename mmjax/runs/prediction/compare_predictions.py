"""Tabulates how runs differ on single test examples, from their stored predictions."""

from collections.abc import Sequence

import numpy as np

from mmjax.report import number_format, statistics
from mmjax.report.example_statistics import McNemar
from mmjax.runs.prediction.stored_predictions import (
    ExampleComparison,
    StoredPredictions,
    compare_examples,
    read_test_predictions,
)
from mmjax.runs.read import RunRecord, list_metrics


def make_example_rows(runs: Sequence[RunRecord]) -> list[list[str]]:
    """Tabulates differences to the first run on the same test examples.

    There is a row per metric of `compare_examples`, and per task and seed one of McNemar's test,
    with Holm's p over the runs.

    Returns:
      Rows of text, the header first; [] if no run has predictions of the first one's examples.
    """
    first, others = runs[0], runs[1:]
    rows, tested = [["", *(run.name for run in others)]], set()
    for name in list_metrics(runs):
        task, _, metric = name.rpartition("/")
        compared = [_compare_runs(first, run, task, metric) for run in others]
        if not any(compared):
            continue
        rows.append([name, *(_format_bootstrap(c[1]) if c else "" for c in compared)])
        if task in tested:
            continue
        tested.add(task)
        for seed in first.tests:
            tests = [
                c[1].mcnemar[c[0].index(seed)] if c and seed in c[0] and c[1].mcnemar else None
                for c in compared
            ]
            if any(tests):
                rows.append([f"{task} McNemar, seed {seed}", *_format_tests(tests)])
    return rows if len(rows) > 1 else []


def _compare_runs(
    first: RunRecord, other: RunRecord, task: str, metric: str
) -> tuple[list[int], ExampleComparison] | None:
    """Returns the common seeds and the comparison; None unless both predict the same examples."""
    seeds = [seed for seed in first.tests if seed in other.tests]
    read: list[StoredPredictions] = []
    for run in (first, other):
        stored = read_test_predictions([run.home], task, seeds)
        if stored is not None:
            read.append(stored)
    if len(read) < 2 or not np.array_equal(read[0].target, read[1].target):
        return None
    comparison = compare_examples(metric, *read)
    return None if comparison is None else (seeds, comparison)


def _format_bootstrap(comparison: ExampleComparison) -> str:
    difference, low, high = comparison.bootstrap
    places = number_format.count_decimals(difference, (high - low) / 2)
    low_text, high_text = (number_format.format_fixed(end, places) for end in (low, high))
    return f"{number_format.format_fixed(difference, places)} [{low_text}, {high_text}]"


def _format_tests(tests: Sequence[McNemar | None]) -> list[str]:
    """Formats tests as "only this run : only the first one", with Holm's p."""
    p = statistics.holm(np.array([np.nan if test is None else test.p for test in tests]))
    cells = []
    for test, value in zip(tests, p.tolist(), strict=True):
        count = "" if test is None else f"{test.only_second} : {test.only_first}"
        cells.append(count and f"{count} (p {number_format.format_p_value(value)})")
    return cells
