"""Hints about what the user probably meant when data have an unexpected form."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.dataset import Task
from mmjax.data.describe.announce import announce_once
from mmjax.data.kinds import Category, Input, Label, Target, get_columns
from mmjax.data.load.arrays.foreign_types import is_frame
from mmjax.data.load.infer_kinds import TablePart
from mmjax.data.load.tables.dialect_cells import Gaps
from mmjax.data.load.tables.table_files import is_number
from mmjax.data.load.targets.class_names import simplify_name
from mmjax.types import Batch

_MANY_CLASSES = 30  # whole numbers: below it, they are likely names
_MIN_EXAMPLES_PER_CLASS = 20
_CHECKED_VALUES = 10_000


def check_splits(splits: Any, names: Sequence[str]) -> None:
    """Refuses a table, or the arrays of one split, in the place of {split: arrays}.

    Raises:
      ValueError: saying which function takes it, or how to write it.
    """
    if is_frame(splits):
        raise ValueError(
            f"from_arrays got a {type(splits).__name__}; it needs {{split: arrays}}. "
            "mmjax.data.from_table takes one table, and also draws the splits."
        )
    if not isinstance(splits, Mapping):
        raise ValueError(
            f"from_arrays got a {type(splits).__name__}; it needs {{split: arrays}}, such as "
            "{'train': {'x': x, 'y': y}, 'validation': {...}, 'test': {...}}."
        )
    if "train" not in splits and set(names) <= set(splits):
        raise ValueError(
            f"from_arrays got the arrays {sorted(map(str, splits))} without a split; it needs "
            "{split: arrays}, such as {'train': {'x': x, 'y': y}, 'validation': {...}, 'test': "
            "{...}}. mmjax.data.from_table takes one table, and draws the splits."
        )


def warn_about_inputs_as_targets(
    name: str, inputs: Mapping[str, Sequence[str]], targets: Mapping[str, Sequence[str]]
) -> None:
    """Warns if an input reads what a target reads, since the model can copy it.

    Args:
      name: name of the data set.
      inputs: {modality: the columns that it reads}.
      targets: {task: the columns that it reads}.
    """
    for task, columns in targets.items():
        for modality, others in inputs.items():
            for column in sorted(set(columns) & set(others)):
                warnings.warn(
                    f"{name}: {column!r} is the target of task {task!r} and an input of modality "
                    f"{modality!r}, so that a model can copy it; leave it out of one.",
                    stacklevel=3,
                )


def note_unusual_task(name: str, task: str, spec: Task, train: Batch) -> None:
    """Prints a note about an inferred task whose values look like those of another kind.

    Args:
      name: name of the data set.
      task: name of the task.
      spec: what was inferred.
      train: the training split's targets and masks.
    """
    values = train.targets[task][train.labeled[task]]
    if spec.kind == "regression" and values.ndim == 1:
        distinct = np.unique(values[:_CHECKED_VALUES])
        if len(distinct) <= _MANY_CLASSES and (distinct == np.round(distinct)).all():
            announce_once(
                f"{name}: target {task!r} is a regression, as its type is floating-point; its "
                f"{len(distinct)} values are whole: give integers or names if they are classes"
            )
    if spec.kind == "classification" and _are_counts(spec, len(values)):
        announce_once(
            f"{name}: target {task!r} has {len(spec.classes)} whole numbers for classes; if it is "
            "a count or an amount, give floating-point numbers for a regression"
        )


def _are_counts(spec: Task, labels: int) -> bool:
    """Checks whether classes are many whole numbers, most of which have few examples."""
    are_numbers = all(c.lstrip("-").isdecimal() for c in spec.classes)
    few = labels < _MIN_EXAMPLES_PER_CLASS * len(spec.classes)
    return are_numbers and few and len(spec.classes) > _MANY_CLASSES


def note_columns(
    name: str,
    columns: Sequence[tuple[str, str | Input | Target, Input | Target]],
    train: TablePart,
    gaps: Sequence[Gaps],
) -> None:
    """Prints what was inferred of a table's columns, and what looks wrong in them.

    Args:
      name: name of the data set.
      columns: of each modality and task its name, what was given for it, and its kind.
      train: the training split.
      gaps: the cells of each table that are spellings of a gap.
    """
    counts_of: dict[str, Counter[str]] = {}
    for gap in gaps:
        for column, spelled in gap.cells.items():
            counts_of.setdefault(column, Counter()).update(spelled.values())
    table, rows = train
    names: dict[str, Counter[str]] = {}
    for _, _, kind in columns:
        for column in get_columns(kind) if isinstance(kind, Label | Category) else ():
            cells = (table.columns[column][row] for row in rows)
            names[column] = Counter(str(cell) for cell in cells if cell is not None)
    note_column_counts(name, columns, names, counts_of)


def note_column_counts(
    name: str,
    columns: Sequence[tuple[str, str | Input | Target, Input | Target]],
    names: Mapping[str, Mapping[str, int]],
    gaps: Mapping[str, Mapping[str, int]],
) -> None:
    """Prints what was inferred of columns, and what looks wrong, of counts of their cells.

    Args:
      name: name of the data set.
      columns: of each modality and task its name, what was given for it, and its kind.
      names: {column of classes or categories: {cell: how often the training split has it}}.
      gaps: {column: {spelling of a gap: how often it occurs}}.
    """
    inferred = [f"{n} is {type(kind).__name__}" for n, s, kind in columns if isinstance(s, str)]
    if inferred:
        announce_once(f"{name}: inferred from the cells: {', '.join(inferred)}")
    for column, counts in gaps.items():
        listed = ", ".join(f"{count} {spelling!r}" for spelling, count in counts.items())
        announce_once(
            f"{name}: cells of column {column!r} count as empty: {listed}; "
            "dialect=Dialect(missing=()) keeps them"
        )
    for n, _, kind in columns:
        for column in get_columns(kind) if isinstance(kind, Label | Category) else ():
            note_similar_names(f"{name}: column {column!r}", names[column])
            if isinstance(kind, Label) and not kind.ordered and not kind.classes:
                _note_numbers_as_classes(name, n, column, names[column])


def note_similar_names(what: str, names: Iterable[str]) -> None:
    """Warns if names differ only in blanks, case or the form of their characters.

    Example:
      >>> with warnings.catch_warnings(record=True) as caught:
      ...     warnings.simplefilter("always")
      ...     note_similar_names("pets", ["cat", "dog", "cat "])
      >>> str(caught[0].message)
      "pets has names that differ in blanks or case only: 'cat', 'cat '. Write them alike."
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(simplify_name(name), []).append(name)
    alike = [group for group in groups.values() if len(group) > 1]
    if alike:
        listed = "; ".join(", ".join(map(repr, group)) for group in alike[:5])
        more = f", and {len(alike) - 5} more" if len(alike) > 5 else ""
        warnings.warn(
            f"{what} has names that differ in blanks or case only: {listed}{more}. Write them "
            "alike.",
            stacklevel=3,
        )


def _note_numbers_as_classes(name: str, task: str, column: str, classes: Mapping[str, int]) -> None:
    """Prints a note if the names of many classes are numbers."""
    few = sum(classes.values()) < _MIN_EXAMPLES_PER_CLASS * len(classes)
    if len(classes) > _MANY_CLASSES and few and all(map(is_number, classes)):
        announce_once(
            f"{name}: target {task!r} has {len(classes)} numbers for classes; if it is a count or "
            f"an amount, give Value({column!r}) for a regression"
        )
