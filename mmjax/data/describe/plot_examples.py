"""A plot of some examples: images as images, sound as spectrograms, text as text."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.dataset import Dataset, Modality, Task, split_parts
from mmjax.data.kinds import PLOTTED_KINDS, Input
from mmjax.data.kinds.plotting import draw_text
from mmjax.data.kinds.protocols import RowScale
from mmjax.printing.escapes import escape_control_characters
from mmjax.types import Batch

_MAX_EXAMPLES = 8


def draw_examples(data: Dataset, path: Path, *, seed: int = 0) -> str:
    """Draws examples of the first split as PNG: one column per example, one row per modality.

    The examples are drawn by `seed`. Their labels are the titles.

    Returns:
      The name of the split.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    split, source = next(iter(data.splits.items()))
    count = min(_MAX_EXAMPLES, len(source))
    chosen = np.random.default_rng(seed).choice(len(source), count, replace=False)
    batch, modalities = split_parts(source.take(np.sort(chosen)), data.modalities)
    size = (1.6 * count + 0.8, 1.9 * len(modalities) + 0.3 * len(data.tasks))
    with matplotlib.rc_context({"text.parse_math": False}):  # names are not mathematics
        figure, axes = plt.subplots(
            len(modalities), count, figsize=size, squeeze=False, layout="constrained"
        )
        for row, (name, spec) in zip(axes, modalities.items(), strict=True):
            _draw_modality(row, name, spec, batch)
        for column, axis in enumerate(axes[0]):
            lines = format_titles(data, batch, column).splitlines()
            wrapped = [textwrap.fill(t, 24, max_lines=3, placeholder=" ...") for t in lines]
            axis.set_title("\n".join(wrapped), fontsize=8)
        figure.savefig(path, dpi=120)
    plt.close(figure)
    return split


def format_titles(data: Dataset, batch: Batch, row: int) -> str:
    """Formats the labels of an example, one line per task."""
    lines = []
    for name, task in data.tasks.items():
        text = format_target(task, batch.targets[name][row]) if batch.labeled[name][row] else "–"
        lines.append(escape_control_characters(f"{name}: {text}"))
    return "\n".join(lines)


def format_target(task: Task, target: Any) -> str:
    """Formats a target.

    Example:
      >>> format_target(Task("multilabel", ("big", "tame")), [0, 1])
      'tame'
    """
    if task.kind == "classification" and task.shape:
        return ", ".join(f"{c} {y:.2g}" for c, y in zip(task.classes, target, strict=True))
    if task.kind in ("classification", "ordinal"):
        return task.classes[int(target)]
    if task.kind == "sequence":
        return " ".join(task.classes[c] if c >= 0 else "–" for c in target)
    if task.kind in ("segmentation", "depth"):
        return " x ".join(map(str, np.shape(target)))
    if task.kind == "multilabel":
        return ", ".join(c for c, y in zip(task.classes, target, strict=True) if y == 1) or "none"
    numbers = ", ".join(f"{number:.4g}" for number in np.ravel(target))
    return f"{numbers} {task.unit}".strip()


def _draw_modality(row: Any, name: str, spec: Modality, batch: Batch) -> None:
    """Draws one modality of every example, all on one scale and without padding."""
    examples = [_extract_example(name, spec, batch, i) for i in range(len(row))]
    scale = _compute_row_scale(examples)._replace(vocabulary=spec.vocabulary)
    axis_names = ("", "")
    for axis, x in zip(row, examples, strict=True):
        axis.tick_params(labelsize=6)
        if x is None:
            draw_text(axis, "missing", color="0.5")
            continue
        kind, names = _choose_kind(x, spec)
        kind.draw(axis, x, scale)
        axis_names = axis_names if any(axis_names) else names  # a text has none
    for axis in row[1:]:  # the row has one vertical scale
        axis.set_yticklabels([])
    across, up = axis_names
    row[0].set_xlabel(across, fontsize=7)
    name = escape_control_characters(name)
    row[0].set_ylabel(f"{name}\n{up}" if up else name, fontsize=8)


def _choose_kind(x: np.ndarray, spec: Modality) -> tuple[type[Input], tuple[str, str]]:
    """Returns the first kind that draws an example, and the names of its axes."""
    for kind in PLOTTED_KINDS:
        names = kind.name_axes(x, spec)
        if names is not None:
            return kind, names
    raise AssertionError("the last kind draws any array")


def _compute_row_scale(examples: Sequence[np.ndarray | None]) -> RowScale:
    """Computes the range of all values (0 to 1 if there are none) and the longest first axis."""
    arrays = [x for x in examples if x is not None and x.size]
    low = min((float(x.min()) for x in arrays), default=0.0)
    high = max((float(x.max()) for x in arrays), default=1.0)
    return RowScale(low, high, max((len(x) for x in arrays if x.ndim), default=1))


def _extract_example(name: str, spec: Modality, batch: Batch, row: int) -> np.ndarray | None:
    """Returns one input without its padding; None if it is missing."""
    if not batch.present[name][row]:
        return None
    x = np.asarray(batch.inputs[name][row])
    return x[: batch.lengths[name][row]] if spec.sequence else x
