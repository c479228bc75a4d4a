"""Tables of the contents of each split: counts, shapes, balance of classes, missing parts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mmjax.data.dataset import Dataset, Modality, Task, split_parts
from mmjax.printing.console import print_table
from mmjax.types import Batch

CHUNK = 1024  # examples in memory at once
_MAX_LISTED_CLASSES = 40  # largest number of classes that a table lists


class Table(NamedTuple):
    """A title, and rows of text, the first of which is the header."""

    title: str
    rows: list[list[str]]


def describe_dataset(data: Dataset) -> list[Table]:
    """Reads every example once and makes the tables.

    Raises:
      ValueError: if a split has no examples or lacks a modality or a task.

    Example:
      >>> from mmjax.data import interactions
      >>> describe_dataset(interactions(train=30, validation=10, test=10))[0].rows
      [['', 'train', 'validation', 'test'], ['examples', '30', '10', '10']]
    """
    splits = {split: read_split_labels(data, split) for split in data.splits}
    modalities = dict(data.modalities)
    for split, batch in splits.items():
        splits[split], modalities = split_parts(batch, data.modalities)
    tables = [
        _make_split_table(splits),
        Table("Modalities", _list_modalities(modalities, splits)),
        Table("Tasks", _list_tasks(data.tasks, splits)),
    ]
    for name, task in data.tasks.items():
        kind = {
            "multilabel": _count_labels,
            "regression": _summarize_numbers,
            "depth": _summarize_numbers,
        }
        tables.append(kind.get(task.kind, _count_classes)(name, task, splits))
    return tables + [_make_fact_table(name, value) for name, value in data.facts.items()]


def read_split_labels(data: Dataset, split: str) -> Batch:
    """Reads a split in chunks; of the inputs only those of the first example are kept.

    Raises:
      ValueError: if the split has no examples or lacks a modality or a task.
    """
    from mmjax.data.progress_bars import track_progress

    source = data.splits[split]
    if not len(source):
        raise ValueError(f"{data.name}, split {split!r}: it has no examples.")
    starts = range(0, len(source), CHUNK)
    inputs: dict[str, Any] = {}
    chunks: list[Batch] = []
    for start in track_progress(starts, f"Reading {data.name}: {split}", len(starts)):
        chunk = source.take(np.arange(start, min(start + CHUNK, len(source))))
        if not chunks:
            _check_complete(data, split, chunk)
            inputs = jax.tree.map(lambda x: x[:1], chunk.inputs)
        chunks.append(chunk._replace(inputs={}))
    whole = Batch(*map(_concatenate_mappings, zip(*chunks, strict=True)))
    return whole._replace(inputs=inputs)


def print_tables(tables: Sequence[Table]) -> None:
    """Prints the tables."""
    for table in tables:
        print_table(table.rows, table.title)


def _concatenate_mappings(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def _check_complete(data: Dataset, split: str, batch: Batch) -> None:
    sequences = [m for m, spec in data.modalities.items() if spec.sequence]
    required = {
        "inputs": data.modalities,
        "present": data.modalities,
        "lengths": sequences,
        "targets": data.tasks,
        "labeled": data.tasks,
    }
    for part, names in required.items():
        for name in names:
            if name not in getattr(batch, part):
                raise ValueError(f"{data.name}, split {split!r}: {part} has no {name!r}.")


def _make_split_table(splits: Mapping[str, Batch]) -> Table:
    counts = [f"{batch.size:,}" for batch in splits.values()]
    return Table("Splits", [["", *splits], ["examples", *counts]])


def _list_modalities(
    modalities: Mapping[str, Modality], splits: Mapping[str, Batch]
) -> list[list[str]]:
    first = next(iter(splits.values()))
    rows = [["", "shape", "type", "length", *(f"missing in {split}" for split in splits)]]
    for name, spec in modalities.items():
        missing = [_format_missing(~batch.present[name]) for batch in splits.values()]
        kind = str(first.inputs[name].dtype)
        tokens = f" of {len(spec.vocabulary)} tokens" if spec.vocabulary else ""
        lengths = _format_lengths(name, spec, splits)
        rows.append([name, spec.describe() + tokens, kind, lengths, *missing])
    return rows


def _format_lengths(name: str, spec: Modality, splits: Mapping[str, Batch]) -> str:
    """Formats the shortest, the longest and the mean length of all present sequences."""
    if not spec.sequence:
        return ""
    lengths = np.concatenate([b.lengths[name][b.present[name]] for b in splits.values()])
    if not len(lengths):
        return "none"
    return f"{lengths.min()} to {lengths.max()}, mean {lengths.mean():.1f}"


def _list_tasks(tasks: Mapping[str, Task], splits: Mapping[str, Batch]) -> list[list[str]]:
    rows = [["", "kind", "classes", "unit", *(f"unlabeled in {split}" for split in splits)]]
    for name, task in tasks.items():
        missing = [_format_missing(~batch.labeled[name]) for batch in splits.values()]
        classes = str(len(task.classes)) if task.classes else ""
        rows.append([name, task.kind, classes, task.unit, *missing])
    return rows


def _count_classes(name: str, task: Task, splits: Mapping[str, Batch]) -> Table:
    labels = [_flatten_labeled(task, b.targets[name][b.labeled[name]]) for b in splits.values()]
    counts = [np.bincount(y, minlength=len(task.classes)) for y in labels]
    unit = {"sequence": "steps", "segmentation": "pixels"}.get(task.kind, "examples")
    rows = _list_class_counts(task, list(splits), counts, list(map(len, labels)))
    return Table(f"{name}: {unit} of each class", rows)


def _flatten_labeled(task: Task, targets: np.ndarray) -> np.ndarray:
    """Flattens the targets, without steps and pixels that have no label."""
    if task.kind == "classification" and task.shape:
        return targets.argmax(axis=1)  # the class with the largest share
    flat = targets.reshape(-1)
    if task.kind in ("sequence", "segmentation"):
        return flat[flat >= 0]
    return flat[flat > 0] if task.kind == "depth" else flat


def _count_labels(name: str, task: Task, splits: Mapping[str, Batch]) -> Table:
    labels = [b.targets[name][b.labeled[name]] for b in splits.values()]
    counts = [(y == 1).sum(axis=0) for y in labels]
    totals = [len(y) for y in labels]
    return Table(
        f"{name}: examples that have a label",
        _list_class_counts(task, list(splits), counts, totals),
    )


def _list_class_counts(
    task: Task, splits: list[str], counts: list[np.ndarray], totals: list[int]
) -> list[list[str]]:
    """Makes one row per class; of many classes those most frequent in the first split."""
    order = np.argsort(-counts[0], kind="stable")[:_MAX_LISTED_CLASSES]
    rows = [["", *splits]]
    for c in sorted(order) if len(task.classes) <= _MAX_LISTED_CLASSES else order:
        cells = [_format_count(int(n[c]), total) for n, total in zip(counts, totals, strict=True)]
        rows.append([task.classes[c], *cells])
    rest = len(task.classes) - _MAX_LISTED_CLASSES
    if rest > 0:
        rows.append([f"and {rest} rarer ones", *[""] * len(splits)])
    return rows


def _summarize_numbers(name: str, task: Task, splits: Mapping[str, Batch]) -> Table:
    unit = f" in {task.unit}" if task.unit else ""
    rows = [["", "mean", "standard deviation", "lowest", "highest"]]
    for split, batch in splits.items():
        y = _flatten_labeled(task, batch.targets[name][batch.labeled[name]].astype(np.float64))
        figures = [y.mean(), y.std(), y.min(), y.max()] if y.size else []
        rows.append([split, *(f"{v:.4g}" for v in figures)] if figures else [split, *["none"] * 4])
    return Table(f"{name}{unit}", rows)


def _make_fact_table(name: str, value: Any) -> Table:
    """Makes the table of a fact; of nested mappings the inner keys become columns."""
    title = name.replace("_", " ")
    if not isinstance(value, Mapping):
        return Table(title, [["", ""], [title, _format_value(value)]])
    if not all(isinstance(inner, Mapping) for inner in value.values()):
        return Table(title, [["", ""]] + [[str(k), _format_value(v)] for k, v in value.items()])
    columns = list(dict.fromkeys(str(k) for inner in value.values() for k in inner))
    rows = [[str(k), *(_format_value(v.get(c, "")) for c in columns)] for k, v in value.items()]
    return Table(title, [["", *columns], *rows])


def _format_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _format_missing(mask: np.ndarray) -> str:
    return f"{mask.sum():,} ({mask.mean():.1%})" if mask.any() else "none"


def _format_count(count: int, total: int) -> str:
    return f"{count:,} ({count / max(total, 1):.1%})"
