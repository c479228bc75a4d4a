"""Tables of a report from the contributions that `mmjax contribution` stored for its arms."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import files
from mmjax.report.number_format import count_decimals, format_interval
from mmjax.report.study_results import StudyRecord
from mmjax.report.table_cells import Cell, make_label_cells, shorten_axis_names
from mmjax.report.tables import Table
from mmjax.study.folds import name_fold

_MEASURES = {
    "shapley": "Shapley",
    "interaction": "interaction",
    "intershap": "InterSHAP",
    "utilization": "utilization",
    "permutation": "perceptual score",
    "additive gap": "additive gap",
}
_NOTE = (
    "Measured by `mmjax contribution`: means and 95% intervals over the seeds; more is better "
    "whatever the metric. docs/contribution.md explains the measures, and when each can be trusted."
)


def make_contribution_tables(record: StudyRecord, directory: Path) -> list[Table]:
    """Makes a table per metric with a stored contribution; there are none without any."""
    stored: dict[str, dict[str, Any]] = {}
    for arm, metrics in _read_contributions(record, directory):
        for metric, measures in metrics.items():
            stored.setdefault(metric, {})[arm] = measures
    tables = []
    for number, (metric, arms) in enumerate(stored.items()):
        tables.append(_make_table(record, f"contribution_{number}", metric, arms))
    return tables


def _read_contributions(record: StudyRecord, directory: Path) -> Iterator[tuple[str, Any]]:
    """Yields every arm with a stored contribution (of its first fold), and its metrics."""
    for arm in record.arms:
        name = name_fold(arm, 0) if record.folds else arm
        path = directory / "arms" / name / "contribution" / "contribution.json"
        if path.is_file():
            contribution = files.read_json(path)
            with files.name_damaged_file(path):
                yield arm, dict(contribution["metrics"])


def _make_table(record: StudyRecord, name: str, metric: str, arms: Mapping[str, Any]) -> Table:
    keys: dict[tuple[str, str], None] = {}  # an ordered set
    for measures in arms.values():
        for measure in _MEASURES:
            keys |= dict.fromkeys(itertools.product([measure], measures.get(measure, {})))
    rows = []
    for arm, measures in arms.items():
        cells = [_make_cell(measures.get(measure, {}).get(of)) for measure, of in keys]
        rows.append([*make_label_cells(record, arm), *cells])
    labels = shorten_axis_names(record) or ["arm"]
    header = [*labels, *(f"{_MEASURES[measure]} {of}".strip() for measure, of in keys)]
    title = f"Contributions of the modalities to {metric}"
    return Table(name, title, header, rows, len(labels), _NOTE)


def _make_cell(estimate: Mapping[str, Any] | None) -> Cell:
    if estimate is None or estimate["mean"] is None:
        return Cell("undefined" if estimate else "")
    mean, half = estimate["mean"], np.nan if estimate["half"] is None else estimate["half"]
    return Cell(format_interval(mean, half, min(count_decimals(mean, half), 4)), mean)
