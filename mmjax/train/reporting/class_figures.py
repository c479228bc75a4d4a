"""Figures of predicted classes: confusion matrices and calibration."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float, Integer
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from mmjax import files
from mmjax.metrics.calibration import compute_calibration_curve
from mmjax.printing.escapes import escape_control_characters

_MAX_WRITTEN = 15  # largest number of classes whose cells hold numbers
_MAX_NAMED = 60  # largest number of classes that all have their names at the axes
_NAMED_OF_MORE = 25  # number of classes with names, if there are more
_MAX_CELLS = 200  # largest number of rows of cells
_LISTED = 12  # number of confusions that are listed, if cells hold no numbers
_BINS = 15
_BLUE = "#0072B2"
_NO_FORMULAS: Any = {"text.parse_math": False}  # a name with two $ is a name


@mpl.rc_context(_NO_FORMULAS)
def draw_confusions(
    task: str, counts: Integer[np.ndarray, "c c"], names: Sequence[str], seeds: int = 1
) -> Figure:
    r"""Draws a confusion matrix: a row per true class, as shares of the row.

    Up to 15 classes, cells hold shares and counts; otherwise the most frequent confusions are
    listed below. Of more than 200 classes a cell is the largest share of a block of classes, since
    single cells could not be seen. Rows are labeled with the number of their examples.

    Args:
      task: name of the task.
      counts: examples per true class and predicted class.
      names: names of the classes.
      seeds: number of seeds whose predictions the counts sum.

    Example:
      >>> figure = draw_confusions("mood", np.array([[3, 1], [0, 4]]), ["sad", "glad"])
      >>> [text.get_text() for text in figure.axes[0].texts]
      ['75%\n3', '25%\n1', '0%\n0', '100%\n4']
    """
    classes = len(names)
    rows = counts.sum(axis=1)
    shares = counts / np.maximum(rows, 1)[:, None]
    side = float(np.clip(1.5 + 0.45 * classes, 3.5, 9.0))
    listed = [] if classes <= _MAX_WRITTEN else _list_confusions(counts, names)
    block = -(-classes // _MAX_CELLS)
    figure = Figure(figsize=(side, 0.92 * side + 0.13 * len(listed)), layout="constrained")
    axis = figure.subplots()
    edges = (-0.5, -(-classes // block) * block - 0.5)
    # The square root makes rare confusions visible.
    image = axis.imshow(
        _pool_blocks(shares, block),
        cmap="Blues",
        norm=PowerNorm(0.5, 0, 1),
        interpolation="nearest",
        extent=(*edges, *edges[::-1]),
    )
    if classes <= _MAX_WRITTEN:
        _write_cells(axis, counts, shares)
    else:
        of_blocks = f", largest of {block} × {block} classes" if block > 1 else ""
        bar = figure.colorbar(image, ax=axis, shrink=0.7)
        bar.set_label(f"share of the true class{of_blocks}", fontsize=8)
        figure.supxlabel("\n".join(["most frequent confusions:", *listed]), fontsize=7)
    _label_classes(axis, names, rows // seeds)
    figure.suptitle(f"{_shorten(task)}: test split{_describe_seeds(seeds)}", fontsize=9)
    return figure


def _label_classes(axis: Any, names: Sequence[str], examples: Integer[np.ndarray, " c"]) -> None:
    """Labels both axes with the classes, or some of many, and the rows with their examples too."""
    classes = len(names)
    step = 1 if classes <= _MAX_NAMED else -(-classes // _NAMED_OF_MORE)
    ticks, size = range(0, classes, step), 8 if classes <= _MAX_WRITTEN else 6
    short = [_shorten(name) for name in names]
    axis.set_xticks(ticks, [short[i] for i in ticks], rotation=90, fontsize=size)
    axis.set_yticks(ticks, [f"{short[i]} ({examples[i]:,})" for i in ticks], fontsize=size)
    axis.set_xlabel("predicted", fontsize=8)
    axis.set_ylabel("true (examples)", fontsize=8)


@mpl.rc_context(_NO_FORMULAS)
def draw_calibration(
    task: str, confidence: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"], seeds: int = 1
) -> Figure:
    """Draws accuracy over confidence in bins of equal width, and the share of examples per bin.

    Args:
      task: name of the task.
      confidence: highest probability of each example.
      correct: whether its class is the true one.
      seeds: number of seeds whose predictions these are.
    """
    curve = compute_calibration_curve(confidence, correct, _BINS)
    share = curve["examples"] / curve["examples"].sum()
    error = float((np.abs(curve["accuracy"] - curve["confidence"]) * share).sum())
    figure = Figure(figsize=(3.6, 4.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
    top.plot(curve["confidence"], curve["accuracy"], "o-", color=_BLUE, markersize=4, linewidth=1)
    top.set(xlim=(0, 1), ylim=(0, 1.02))
    top.set_ylabel("accuracy", fontsize=8)
    title = f"{_shorten(task)}: test split{_describe_seeds(seeds)}"
    figure.suptitle(f"{title}\nexpected calibration error {error:.3f}", fontsize=9)
    middles = (np.ceil(curve["confidence"] * _BINS) - 0.5) / _BINS
    bottom.bar(middles, share, width=0.8 / _BINS, color=_BLUE)
    bottom.set_xlabel("confidence", fontsize=8)
    bottom.set_ylabel("share", fontsize=8)
    for axis in (top, bottom):
        axis.tick_params(labelsize=7)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG; the file appears when it is complete."""
    with mpl.rc_context(_NO_FORMULAS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # names in scripts that the font lacks
        with files.replace_atomically(path) as draft:
            figure.savefig(draft, dpi=200, format="png")


def _write_cells(
    axis: Any, counts: Integer[np.ndarray, "c c"], shares: Float[np.ndarray, "c c"]
) -> None:
    """Writes share and count into every cell."""
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        color = "white" if share > 0.35 else "black"
        text = f"{100 * share:.0f}%\n{count:,}"
        axis.text(column, row, text, ha="center", va="center", fontsize=6.5, color=color)


def _pool_blocks(shares: Float[np.ndarray, "c c"], block: int) -> Float[np.ndarray, "k k"]:
    """Returns the largest share of each block of `block` rows and columns."""
    missing = -len(shares) % block
    padded = np.pad(shares, ((0, missing), (0, missing)))
    blocks = len(padded) // block
    return padded.reshape(blocks, block, blocks, block).max(axis=(1, 3))


def _list_confusions(counts: Integer[np.ndarray, "c c"], names: Sequence[str]) -> list[str]:
    """Lists the most frequent confusions, with count and share of the true class."""
    wrong = counts * (1 - np.eye(len(names), dtype=counts.dtype))
    lines = []
    for index in np.argsort(-wrong, axis=None, kind="stable")[:_LISTED]:
        row, column = divmod(int(index), len(names))
        if count := wrong[row, column]:
            share = 100 * count / counts[row].sum()
            true, predicted = _shorten(names[row]), _shorten(names[column])
            lines.append(f"{true} as {predicted}: {count:,} ({share:.0f}%)")
    return lines or ["none"]


def _shorten(name: str) -> str:
    """Returns the name, or its beginning if it is long, in one line."""
    name = escape_control_characters(name.replace("\n", " "))
    return name if len(name) <= 24 else f"{name[:23]}…"


def _describe_seeds(seeds: int) -> str:
    return f", {seeds} seeds together" if seeds > 1 else ""
