"""What is read of a table in parts, and how the surveys of two parts become one."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data.kinds import INPUT_KINDS, TARGET_KINDS, Input, Target, get_columns
from mmjax.data.kinds.protocols import SummarizedKind
from mmjax.data.load.stored.table_parts import CellFormat
from mmjax.data.load.tables.blank_rows import BlankRows, mark_blank_rows_kept

_KINDS = {kind.__name__: kind for kind in (*INPUT_KINDS, *TARGET_KINDS)}


class ColumnPlan(NamedTuple):
    """What is read of a table.

    Attributes:
      inputs: {modality: kind, or the column alone}.
      targets: {task: kind, or the column alone}.
      weights: {task: column of weights}.
      cells: how files are read.
      blank_rows: what to do with rows in which all inputs are empty.
    """

    inputs: Mapping[str, str | Input]
    targets: Mapping[str, str | Target]
    weights: Mapping[str, str]
    cells: CellFormat
    blank_rows: BlankRows

    def list_columns(self) -> list[str]:
        """Lists all columns."""
        specs = [*self.inputs.values(), *self.targets.values(), *self.weights.values()]
        return sorted({name for spec in specs for name in get_columns(spec)})


class Survey(NamedTuple):
    """What the training split says about a table, and what is printed about its cells.

    Attributes:
      inputs: {modality: its kind}.
      targets: {task: its kind}.
      learned: {modality: what the kind has learned}.
      names: {column of classes or categories: {cell: how often it occurs}}.
      gaps: {column: {spelling of a gap: how often it occurs}}.
    """

    inputs: dict[str, Input]
    targets: dict[str, Target]
    learned: dict[str, dict[str, Any]]
    names: Mapping[str, Mapping[str, int]]
    gaps: Mapping[str, Mapping[str, int]]


def merge_results(
    plan: ColumnPlan, first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, Any]:
    """Merges the surveys of two sets of rows.

    Args:
      plan: what is read of the table.
      first: the survey of the rows that come first.
      second: that of the others.

    Raises:
      ValueError: naming a column whose cells are of different kinds.
    """
    merged: dict[str, Any] = {"inputs": {}, "targets": {}}
    for part, given in (("inputs", plan.inputs), ("targets", plan.targets)):
        for name, spec in given.items():
            a, b = first[part][name], second[part][name]
            merged[part][name] = a or b
            if a is not None and b is not None:
                merged[part][name] = _merge_entries(spec, a, b)
    for key in ("names", "gaps"):
        columns = {**first[key], **second[key]}
        merged[key] = {
            c: dict(Counter(first[key].get(c, {})) + Counter(second[key].get(c, {})))
            for c in columns
        }
    for column, is_rewritten in second["rewritten"].items():
        if first["rewritten"].get(column, is_rewritten) != is_rewritten:
            raise ValueError(
                f"column {column!r}: in some parts of the table all cells are numbers of the "
                "dialect, in others not; write its names alike."
            )
    merged["rewritten"] = {**first["rewritten"], **second["rewritten"]}
    return merged


def _merge_entries(spec: Any, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Merges what two parts say of a modality or a task."""
    merged = dict(a)
    if isinstance(spec, str):
        merged["numbers"] = a["numbers"] and b["numbers"]
        if a["kind"] != b["kind"]:
            # Whole numbers alone look like classes, and are numbers beside others.
            if {a["kind"], b["kind"]} != {"Value", "Label"} or not merged["numbers"]:
                raise ValueError(
                    f"column {spec!r} looks like {a['kind']} from {a['place']} on, but like "
                    f"{b['kind']} from {b['place']} on; name its kind, such as "
                    f"{a['kind']}({spec!r})."
                )
            merged["kind"] = "Value"
    if "summary" in a:
        kind: Any = _KINDS[a["kind"]](spec) if isinstance(spec, str) else spec
        if isinstance(kind, SummarizedKind):
            merged["summary"] = kind.merge_summaries(a["summary"], b["summary"])
        else:
            merged["summary"] = a["summary"] or b["summary"]
    return merged


def finish_survey(plan: ColumnPlan, total: Mapping[str, Any], path: Path) -> Survey:
    """Makes the kinds, and lets them learn.

    Args:
      plan: what is read of the table.
      total: the survey of all rows.
      path: the first file, for messages.

    Raises:
      ValueError: naming a column that is empty in the training split.
    """
    kinds: dict[str, Any] = {}
    for part, given in (("inputs", plan.inputs), ("targets", plan.targets)):
        for name, spec in given.items():
            entry = total[part][name]
            if isinstance(spec, str) and entry is None:
                what = "modality" if part == "inputs" else "task"
                raise ValueError(
                    f"{path}: column {spec!r} of {what} {name!r} is empty in the training split."
                )
            kinds[f"{part}/{name}"] = _KINDS[entry["kind"]](spec) if isinstance(spec, str) else spec
    inputs = {m: kinds[f"inputs/{m}"] for m in plan.inputs}
    learned = {}
    for m, spec in inputs.items():
        summary = total["inputs"][m]["summary"]
        is_summarized = isinstance(spec, SummarizedKind)
        learned[m] = spec.learn_summary(summary) if is_summarized else dict(summary)
        if plan.blank_rows == "keep":
            learned[m] = mark_blank_rows_kept(learned[m])
    targets = {t: kinds[f"targets/{t}"] for t in plan.targets}
    return Survey(inputs, targets, learned, total["names"], total["gaps"])
