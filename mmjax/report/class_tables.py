"""Tables of a report from the class tables of its arms: the F1 of every class."""

import csv
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmjax import files
from mmjax.report.study_results import StudyRecord
from mmjax.report.table_cells import Cell, make_label_cells, shorten_axis_names
from mmjax.report.tables import Table
from mmjax.study.folds import name_fold

_ENDING = "-classes.csv"
_MAX_CLASSES = 12  # largest number of columns that a page holds
_NOTE = (
    "On the test split, with the predictions of all seeds counted together{fold}. arms/ARM/test/ "
    "also holds precision and recall, and for one class per example the confusion matrix and the "
    "calibration."
)


def make_class_tables(record: StudyRecord, directory: Path) -> list[Table]:
    """Makes a table of F1 by class for every task of up to 12 classes."""
    stored: dict[str, dict[str, dict[str, float]]] = {}
    for arm, task, scores in _read_class_scores(record, directory):
        stored.setdefault(task, {})[arm] = scores
    tables = []
    for number, (task, arms) in enumerate(stored.items()):
        classes = list(dict.fromkeys(itertools.chain(*arms.values())))
        if len(classes) <= _MAX_CLASSES:
            tables.append(_make_table(record, f"classes_{number}", task, classes, arms))
    return tables


def _read_class_scores(
    record: StudyRecord, directory: Path
) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Yields every arm (of its first fold), each of its tasks, and {class: F1}."""
    for arm in record.arms:
        name = name_fold(arm, 0) if record.folds else arm
        for path in sorted((directory / "arms" / name / "test").glob(f"*{_ENDING}")):
            lines = files.read_text(path).splitlines()
            with files.name_damaged_file(path):
                rows = list(csv.DictReader(lines))
                yield (
                    arm,
                    path.name.removesuffix(_ENDING),
                    {row["class"]: float(row["f1"]) for row in rows},
                )


def _make_table(
    record: StudyRecord,
    name: str,
    task: str,
    classes: list[str],
    arms: Mapping[str, Mapping[str, float]],
) -> Table:
    rows = []
    for arm, scores in arms.items():
        cells = [Cell(f"{scores[c]:.3f}", scores[c]) if c in scores else Cell("") for c in classes]
        rows.append([*make_label_cells(record, arm), *cells])
    labels = shorten_axis_names(record) or ["arm"]
    note = _NOTE.format(fold=", of the first fold" if record.folds else "")
    title = f"F1 of each class of {task}"
    return Table(name, title, [*labels, *classes], rows, len(labels), note)
