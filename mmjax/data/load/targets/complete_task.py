"""Completes a task from the data: classes, the shape of a target, unknown labels."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.dataset import Modality, Task
from mmjax.data.load.targets.class_names import format_class_name, sort_classes
from mmjax.data.load.targets.labels import infer_task, is_missing
from mmjax.data.load.targets.list_targets import is_unknown


def infer_or_complete_task(
    name: str,
    task: Task | None,
    values: Mapping[str, Sequence[Any]],
    modalities: Mapping[str, Modality],
) -> Task:
    """Infers a task, or fills in what a given one leaves open.

    Args:
      name: name of the task, for messages.
      task: the task; without classes, those of the training split are taken; None: inferred.
      values: {split: targets}, None for unlabeled examples.
      modalities: the modalities; the targets of steps are padded as their sequence is.

    Raises:
      ValueError: if the task cannot be inferred, if the order of its classes is not known, or if no
        sequence is as long as the targets.

    Example:
      >>> infer_or_complete_task("stars", Task("ordinal"), {"train": [3, 10, 1]}, {}).classes
      ('1', '3', '10')
    """
    task = task or infer_task(name, values["train"])
    if task.kind not in ("regression", "depth") and not task.classes:
        task = task._replace(classes=_learn_classes(name, task, values["train"]))
    if task.kind == "multilabel":
        rows = (row for part in values.values() for row in part)
        return task._replace(partial=task.partial or _has_unknown_labels(rows))
    first = next((row for row in values["train"] if not is_missing(row)), None)
    if task.shape or first is None or np.ndim(first) == 0:
        return task
    if task.kind == "sequence":
        rows = (row for part in values.values() for row in part)
        longest = max(len(row) for row in rows if not is_missing(row))
        return task._replace(shape=(_choose_padding(name, longest, modalities),))
    return task._replace(shape=np.shape(first))


def _learn_classes(name: str, task: Task, rows: Sequence[Any]) -> tuple[str, ...]:
    """Returns the classes of the training split, sorted."""
    names: set[str] = set()
    for row in rows:
        if isinstance(row, set | frozenset):
            names |= {format_class_name(value) for value in row}
        elif not is_missing(row):
            for value in np.ravel(np.asarray(row, object)):
                if not is_unknown(value) and value != "":
                    names.add(format_class_name(value))
    if not names:
        raise ValueError(f"target {name!r} has no class in the training split.")
    classes = sort_classes(_complete_span_tags(names) if task.kind == "sequence" else names)
    if task.kind == "ordinal" and not all(n.lstrip("-").isdecimal() for n in classes):
        raise ValueError(
            f"target {name!r} is to have ordered classes, but the order of {classes[:3]} is not "
            "known; give the classes in their order."
        )
    return classes


def _complete_span_tags(names: set[str]) -> set[str]:
    """Adds what spans may need: I-NAME to B-NAME and vice versa, and O; other names stay alone."""
    spans = {name[2:] for name in names if name[:2] in ("B-", "I-")}
    if not spans or any(name != "O" and name[:2] not in ("B-", "I-") for name in names):
        return names
    return {"O"} | {f"{begin}-{name}" for begin in "BI" for name in spans}


def _has_unknown_labels(rows: Iterable[Any]) -> bool:
    """Checks whether a multi-label target leaves a class open."""
    lists = (row for row in rows if not is_missing(row) and not isinstance(row, set | frozenset))
    return any(is_unknown(value) for row in lists for value in row)


def _choose_padding(name: str, longest: int, modalities: Mapping[str, Modality]) -> int:
    """Returns the padded length of the sequence whose steps have labels."""
    lengths = {m: spec.shape[0] for m, spec in modalities.items() if spec.sequence}
    if not lengths:
        raise ValueError(
            f"target {name!r} has labels of steps, but no input is a sequence; add the text or the "
            "sequence as an input."
        )
    long_enough = [length for length in lengths.values() if length >= longest]
    if not long_enough:
        raise ValueError(
            f"target {name!r} has up to {longest} labels, but the sequences have {lengths} steps; "
            "give one label per step."
        )
    return min(long_enough)


def check_step_labels(labels: Any, inputs: Mapping[str, np.ndarray | None]) -> None:
    """Refuses step labels if no sequence of the example has as many steps.

    Args:
      labels: one per step.
      inputs: the sequences of the example; None if they are missing.

    Raises:
      ValueError: with the number of labels and of steps.

    Example:
      >>> check_step_labels(["A", "B"], {"note": np.zeros(3)})  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ValueError: it has 2 labels, ['A', 'B'], but the inputs have {'note': 3} steps; give one ...
    """
    steps = {name: len(x) for name, x in inputs.items() if x is not None}
    if steps and len(labels) not in steps.values():
        raise ValueError(
            f"it has {len(labels)} labels, {repr(labels)[:80]}, but the inputs have {steps} steps; "
            "give one label per step."
        )
