"""Encodes columns of paths, and what is known about targets that are files."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.kinds import get_columns
from mmjax.data.load.scan_split import SplitScan
from mmjax.data.load.stored.media_columns import TARGET, MediaColumn
from mmjax.data.load.tables.table_files import Table

FileShapes = Mapping[str, Sequence[Any]]
"""{task whose targets are files: the shape of its targets, and where the first one is}.

Both are lists where they were read from JSON.
"""


def collect_file_names(
    column: MediaColumn, table: Table, rows: Sequence[int], scan: SplitScan
) -> dict[str, np.ndarray]:
    """Collects the cells of a column of files as JSON, and the range of what targets hold."""
    is_target, name = column.prefix == TARGET, column.name
    values = scan.targets.pop(name) if is_target else [example[name] for example in scan.inputs]
    cells: list[np.ndarray | None] = []
    for row, value in zip(rows, values, strict=True):
        names = [table.columns[c][row] for c in get_columns(column.spec)]
        content = json.dumps(names).encode()
        cells.append(None if value is None else np.frombuffer(content, np.uint8))
    arrays = stack_values(name, cells, is_ragged=True)
    if is_target:
        extremes = [_find_extremes(value) for value in values]
        arrays[f"extremes/{name}"] = np.array(extremes).reshape(-1, 2)
    return {f"{column.prefix}{key}": array for key, array in arrays.items()}


def _find_extremes(target: np.ndarray | None) -> tuple[float, float]:
    """Finds the lowest and the highest class or depth of a target; -1 if there is none."""
    known = np.zeros(0) if target is None else target[target >= 0]
    return (float(known.min()), float(known.max())) if known.size else (-1.0, -1.0)


def measure_file_targets(
    table: Table, rows: Sequence[int], scan: SplitScan, columns: Sequence[MediaColumn]
) -> FileShapes:
    """Measures the shape of the targets that are read from files.

    Raises:
      ValueError: naming two rows whose shapes differ.
    """
    shapes: FileShapes = {}
    for column in columns:
        for i, value in enumerate(scan.targets[column.name] if column.prefix == TARGET else ()):
            if value is not None:
                new = {column.name: (list(value.shape), table.place(rows[scan.rows[i]]))}
                shapes = merge_file_shapes(shapes, new)
    return shapes


def merge_file_shapes(first: FileShapes, second: FileShapes) -> FileShapes:
    """Merges the shapes of the targets of two sets of rows, which must be equal.

    Raises:
      ValueError: naming two rows whose shapes differ.
    """
    for task in first.keys() & second.keys():
        (shape, place), (other, other_place) = first[task], second[task]
        if list(shape) != list(other):
            raise ValueError(
                f"{other_place}: target {task!r} is of the shape {tuple(other)}; it must be "
                f"{tuple(shape)}, as at {place}. Give its kind a size=(height, width)."
            )
    return {**second, **first}


def stack_values(
    modality: str, values: Sequence[np.ndarray | None], *, is_ragged: bool
) -> dict[str, np.ndarray]:
    """Stacks the values of examples; ragged ones are concatenated."""
    present = np.array([value is not None for value in values], bool)
    filled = [value for value in values if value is not None]
    arrays = {f"present/{modality}": present}
    if is_ragged:
        lengths = [0 if value is None else len(value) for value in values]
        arrays[f"lengths/{modality}"] = np.array(lengths, np.int64)
    if filled:
        # Missing examples take no space.
        joined = np.concatenate(filled) if is_ragged else np.stack(filled)
        arrays[f"values/{modality}"] = joined
    return arrays
