"""The first pass over a table in parts: what the kinds of its columns need to know."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from mmjax.data.kinds import (
    Category,
    Input,
    Label,
    Value,
    get_columns,
)
from mmjax.data.kinds.protocols import SummarizedKind
from mmjax.data.load.infer_kinds import infer_input_kind, infer_target_kind
from mmjax.data.load.stored.merge_surveys import (
    ColumnPlan,
    Survey,
    finish_survey,
    merge_results,
)
from mmjax.data.load.stored.parallel_jobs import Job, JobFolder
from mmjax.data.load.stored.table_parts import FilePart, iterate_part
from mmjax.data.load.tables.blank_rows import (
    check_has_gaps,
    check_no_blank_rows,
    list_cells,
)
from mmjax.data.load.tables.dialect_cells import Gaps, blank_missing_cells, normalize_kinds
from mmjax.data.load.tables.table_files import Table, is_number

_TABLE_ROWS = 8192  # read at once
_VERSION = 1

PartRows = Mapping[str, Int[np.ndarray, "..."]]
"""{split: the numbers of its rows in a part, in their order}."""


def make_part_key(*facts: Any) -> str:
    """Hashes what the result for a part depends on.

    Example:
      >>> make_part_key("a", 1) == make_part_key("a", 2)
      False
    """
    state = hashlib.sha256()
    for fact in facts:
        state.update(fact.tobytes() if isinstance(fact, np.ndarray) else f"{fact!r};".encode())
    return state.hexdigest()[:32]


def survey_parts(
    parts: Sequence[FilePart], rows: Sequence[PartRows], plan: ColumnPlan, folder: JobFolder
) -> Survey:
    """Infers the kinds of the columns, and learns what they need from the training split.

    Args:
      parts: the parts of the table.
      rows: per part its rows in each split.
      plan: what is read.
      folder: keeps the results.

    Raises:
      ValueError: naming the place of a cell that is wrong, or the column whose kind is not clear.
    """
    jobs = []
    for part, part_rows in zip(parts, rows, strict=True):
        chosen = [value for item in sorted(part_rows.items()) for value in item]
        key = make_part_key(_VERSION, plan, part.digest, part.keys, part.start, *chosen)
        jobs.append(Job(f"survey-{key}", survey_part, (part, part_rows, plan), part.rows * 64))
    total: dict[str, Any] | None = None
    for result in folder.run(jobs, "Surveying the columns"):
        total = result if total is None else merge_results(plan, total, result)
    assert total is not None
    return finish_survey(plan, total, parts[0].path)


def survey_part(part: FilePart, rows: PartRows, plan: ColumnPlan) -> dict[str, Any]:
    """Surveys one part; the result is JSON."""
    total: dict[str, Any] | None = None
    for table, local in iterate_split_tables(part, rows, plan, _TABLE_ROWS):
        result = _survey_table(table, local, plan)
        total = result if total is None else merge_results(plan, total, result)
    assert total is not None
    return total


def iterate_split_tables(
    part: FilePart, rows: PartRows, plan: ColumnPlan, size: int
) -> Iterator[tuple[Table, dict[str, list[int]]]]:
    """Yields tables of at most `size` rows, each with the numbers of its rows in each split."""
    for start, table in iterate_part(part, plan.list_columns(), plan.cells, size):
        local = {}
        for split, numbers in rows.items():
            begin, end = np.searchsorted(numbers, (start, start + len(table)))
            local[split] = (numbers[begin:end] - start).tolist()
        yield table, local


def _survey_table(table: Table, rows: Mapping[str, list[int]], plan: ColumnPlan) -> dict[str, Any]:
    gaps = Gaps(table, blank_missing_cells(table, plan.cells.dialect))
    input_columns = sorted({name for spec in plan.inputs.values() for name in get_columns(spec)})
    if plan.blank_rows == "refuse":
        check_no_blank_rows([(table, part) for part in rows.values()], input_columns, [gaps])
    train = (table, rows.get("train", []))
    kinds: dict[str, Any] = {"inputs": {}, "targets": {}}
    for m, spec in plan.inputs.items():
        kinds["inputs"][m] = _infer(infer_input_kind, (m, spec), spec, train, plan)
    for t, goal in plan.targets.items():
        kinds["targets"][t] = _infer(infer_target_kind, (goal,), goal, train, plan)
    before = dict(table.columns)
    named = [e["spec"] for part in kinds.values() for e in part.values() if e is not None]
    normalize_kinds(table, [*named, *map(Value, plan.weights.values())], plan.cells.dialect)
    for entry in kinds["inputs"].values():
        if entry is not None:
            entry["summary"] = _summarize(entry["spec"], train, plan)
    counted = [spec for spec in named if isinstance(spec, Label | Category)]
    names: dict[str, Counter[str]] = {}
    for column in {name for spec in counted for name in get_columns(spec)}:
        cells = (table.columns[column][row] for row in train[1])
        names[column] = Counter(str(cell) for cell in cells if cell is not None)
    for part in kinds.values():
        for entry in part.values():
            if entry is not None:
                entry["kind"] = type(entry.pop("spec")).__name__
    return {
        **kinds,
        "names": names,
        # Names are only rewritten if all cells of the column are numbers of the dialect.
        "rewritten": {c: table.columns[c] is not before[c] for c in sorted(names)},
        "gaps": {c: dict(Counter(cells.values())) for c, cells in gaps.cells.items()},
    }


def _infer(
    infer: Any, arguments: tuple[Any, ...], spec: Any, train: tuple[Table, list[int]], plan: Any
) -> dict[str, Any] | None:
    """Returns the kind of a column, with a place of it; None if all cells are empty."""
    table, rows = train
    if not isinstance(spec, str):
        return {"spec": spec, "place": ""}
    cells = [table.columns[spec][row] for row in rows]
    filled = [row for row, cell in zip(rows, cells, strict=True) if cell is not None]
    if not filled:
        return None
    kind = infer(*arguments, train, plan.cells.dialect)
    numbers = all(is_number(table.columns[spec][row]) for row in filled)
    return {"spec": kind, "place": table.place(filled[0]), "numbers": numbers}


def _summarize(spec: Input, train: tuple[Table, list[int]], plan: ColumnPlan) -> Mapping[str, Any]:
    columns = list_cells(spec, train, plan.blank_rows)
    summarize = spec.summarize_cells if isinstance(spec, SummarizedKind) else spec.learn
    if plan.blank_rows == "keep":
        check_has_gaps(spec, len(plan.inputs))
        return summarize(columns, None)
    return summarize(columns, train[0].path.parent)
