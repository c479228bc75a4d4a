"""A picture of some examples: images as images, sound as spectrograms, text as text."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.dataset import Dataset, Modality, Task
from mmjax.escapes import escape_control_characters
from mmjax.types import Batch

COLUMNS = 8
UNIT_RANGE = (0.0, 1.0)
GREY, RED, RGBA = 1, 3, 4  # numbers of channels that make a picture


def draw_sheet(data: Dataset, path: Path, *, seed: int = 0) -> str:
    """Draws examples of the first split as PNG: a column an example, a row a modality.

    Which examples is drawn by `seed`. The labels are the titles.

    Returns:
      The name of the split.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    split, source = next(iter(data.splits.items()))
    count = min(COLUMNS, len(source))
    chosen = np.random.default_rng(seed).choice(len(source), count, replace=False)
    batch = source.take(np.sort(chosen))
    size = (1.6 * count + 0.8, 1.9 * len(data.modalities) + 0.3 * len(data.tasks))
    with matplotlib.rc_context({"text.parse_math": False}):  # names are not mathematics
        figure, axes = plt.subplots(
            len(data.modalities), count, figsize=size, squeeze=False, layout="constrained"
        )
        for row, (name, spec) in zip(axes, data.modalities.items(), strict=True):
            _draw_row(row, name, spec, batch)
        for column, axis in enumerate(axes[0]):
            lines = titles(data, batch, column).splitlines()
            wrapped = [textwrap.fill(t, 24, max_lines=3, placeholder=" ...") for t in lines]
            axis.set_title("\n".join(wrapped), fontsize=8)
        figure.savefig(path, dpi=120)
    plt.close(figure)
    return split


def titles(data: Dataset, batch: Batch, row: int) -> str:
    """An example's labels, a line per task."""
    lines = (
        f"{name}: {label(task, batch.targets[name][row]) if batch.labeled[name][row] else '–'}"
        for name, task in data.tasks.items()
    )
    return "\n".join(map(escape_control_characters, lines))


def label(task: Task, target: Any) -> str:
    """A target in words."""
    if task.kind in ("classification", "ordinal"):
        return task.classes[int(target)]
    if task.kind == "sequence":
        return " ".join(task.classes[c] if c >= 0 else "–" for c in target)
    if task.kind in ("segmentation", "depth"):
        return " x ".join(map(str, np.shape(target)))
    if task.kind == "multilabel":
        return ", ".join(c for c, y in zip(task.classes, target, strict=True) if y) or "none"
    numbers = ", ".join(f"{number:.4g}" for number in np.ravel(target))
    return f"{numbers} {task.unit}".strip()


def as_text(x: np.ndarray) -> str | None:
    """Bytes plus 1, as text is stored here (0 is padding), in words; None if they make none."""
    if x.ndim != 1 or not len(x) or not np.issubdtype(x.dtype, np.integer):
        return None
    if x.min() < 1 or x.max() > 256:
        return None
    text = (x.astype(int) - 1).astype(np.uint8).tobytes().decode("utf-8", errors="ignore")
    return text if text and text.isprintable() else None


def _draw_row(row: Any, name: str, spec: Modality, batch: Batch) -> None:
    """One modality of every example, all on one scale; sequences are as long as they are."""
    examples = [_example(name, spec, batch, i) for i in range(len(row))]
    here = [x for x in examples if x is not None and x.size]
    limits = (
        (min(float(x.min()) for x in here), max(float(x.max()) for x in here))
        if here
        else UNIT_RANGE
    )
    longest = max((len(x) for x in here if x.ndim), default=1)
    for axis, x in zip(row, examples, strict=True):
        axis.tick_params(labelsize=6)
        if x is None:
            _write(axis, "missing", color="0.5")
        else:
            _draw(axis, x, spec, limits, longest)
        if axis is not row[0]:  # the row has one vertical scale
            axis.set_yticklabels([])
    across, up = _axis_names(spec, here)
    row[0].set_xlabel(across, fontsize=7)
    name = escape_control_characters(name)
    row[0].set_ylabel(f"{name}\n{up}" if up else name, fontsize=8)


def _axis_names(spec: Modality, examples: Sequence[np.ndarray]) -> tuple[str, str]:
    """What the horizontal and the vertical axes of a modality count."""
    drawn = [x for x in examples if x.ndim and as_text(x) is None]
    if not drawn:
        return "", ""
    if spec.sequence:
        return "time step", "value" if drawn[0].ndim == 1 else "channel"
    if _is_picture(drawn[0], spec):
        return "pixel", "pixel"
    return ("component", "value") if drawn[0].ndim == 1 else ("first axis", "other axes")


def _example(name: str, spec: Modality, batch: Batch, row: int) -> np.ndarray | None:
    """One input, as long as it is; None if it is missing."""
    if not batch.present[name][row]:
        return None
    x = np.asarray(batch.inputs[name][row])
    return x[: batch.lengths[name][row]] if spec.sequence else x


def _draw(
    axis: Any, x: np.ndarray, spec: Modality, limits: tuple[float, float], longest: int
) -> None:
    text = as_text(x)
    if text is not None:
        _write(axis, text)
    elif x.ndim == 0:
        _write(axis, f"{x:.4g}")
    elif x.ndim == 1:
        axis.plot(x, linewidth=0.8, marker="." if longest < 30 else "", color="#0072B2")
        axis.set_ylim(*_wide(limits))
        axis.set_xlim(-0.5, longest - 0.5)
        axis.locator_params(axis="x", nbins=4, integer=True)
    elif _is_picture(x, spec):
        axis.imshow(_unit(x, limits), cmap="gray", vmin=0, vmax=1)
        axis.locator_params(nbins=4, integer=True)
    else:  # Time runs to the right, whatever else there is runs up.
        levels = x.reshape(len(x), -1).T.astype(float)
        low, high = limits
        axis.imshow(levels, aspect="auto", origin="lower", cmap="magma", vmin=low, vmax=high)
        axis.set_xlim(-0.5, longest - 0.5)
        axis.locator_params(nbins=4, integer=True)


def _is_picture(x: np.ndarray, spec: Modality) -> bool:
    """Returns whether an input is an image of gray or colored pixels."""
    return not spec.sequence and x.ndim == 3 and x.shape[2] in (GREY, RED, RGBA)


def _unit(x: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Pixels in 0 to 1: bytes and such as lie there already are left alone, others are scaled."""
    if x.dtype == np.uint8:
        return x / 255
    low, high = limits
    if low >= 0 and high <= 1:
        return x
    return (x - low) / max(high - low, 1e-12)


def _wide(limits: tuple[float, float]) -> tuple[float, float]:
    low, high = limits
    edge = 0.05 * (high - low) or 1.0
    return low - edge, high + edge


def _write(axis: Any, text: str, color: str = "black") -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    wrapped = textwrap.fill(text, 16, max_lines=8, placeholder=" ...")
    axis.text(
        0.5,
        0.5,
        wrapped,
        ha="center",
        va="center",
        fontsize=8,
        color=color,
        transform=axis.transAxes,
    )
