"""The figures of a study's report, in the width of a LaTeX column, readable in black and white.

Each function returns a figure, or None where the study gives no reason for it.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter

from mmjax.escapes import escape_control_characters
from mmjax.report import data_frames, statistics, tables
from mmjax.report import study_results as records
from mmjax.report.study_results import Record

WIDTH = 3.3  # inches
ROW = 0.155  # inches of a line of text
STYLES = 7  # lines that can be told apart without colour
GREY = {"color": "0.75", "linestyle": "-", "linewidth": 0.6, "zorder": 0}  # lines that recede
STYLE: Any = {
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
    "pdf.fonttype": 42,  # TrueType, as publishers ask
    "savefig.dpi": 300,
}


def style() -> Any:
    """The settings of all figures, as a context."""
    return mpl.rc_context(STYLE)


def canvas(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure of a column's width and the given height in inches, and its axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0)  # type: ignore[union-attr, call-arg]
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save(figure: Figure, path: Path) -> None:
    """Writes the figure as PNG and as PDF, without the time, so that the bytes repeat."""
    for text in figure.findobj(Text):
        text.set_text(escape_control_characters(text.get_text(), keep="\n"))
    with style():
        figure.savefig(path.with_suffix(".png"))
        figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})


def label(record: Record, arm: str) -> str:
    """An arm as figures call it: its labels."""
    texts = [cell.text for cell in tables.names(record, arm) if cell.text]
    return escape_control_characters(", ".join(texts))


def scores(record: Record) -> Figure | None:
    """The primary metric of every arm with its interval, best on top; the baseline is a line."""
    found = data_frames.summary(record, record.metric)
    if found.empty:
        return None
    baseline = found["mean"].get(record.baseline)
    title = tables.title(record, record.metric)
    up = records.larger_is_better(record, record.metric)
    return dots(record, found, title, up=up, line=baseline, within=records.bounds(record.metric))


def delta_m(record: Record) -> Figure | None:
    """Δm of every arm with its interval; zero, the single-task arms, is a line."""
    try:
        values = data_frames.delta_m(record)
    except ValueError:  # the table says so
        values = None
    if values is None or values.empty:
        return None
    mean, half = statistics.intervals(values.to_numpy())
    best = statistics.best(values.to_numpy(), maximize=True)
    found = pd.DataFrame({"mean": mean, "half": half, "best": best}, index=values.index)
    return dots(record, found, "Δm % ↑ (line: single-task arms)", up=True, line=0.0)


def dots(
    record: Record,
    found: pd.DataFrame,
    title: str,
    *,
    up: bool,
    line: float | None,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> Figure:
    """Draws means and intervals, a row an arm, as far as values can go; full dots are the best."""
    found = found.sort_values("mean", ascending=up)
    figure, axes = canvas(0.45 + ROW * len(found))
    axis = axes[0, 0]
    if line is not None:
        axis.axvline(line, color="0.5", linewidth=0.7, linestyle=(0, (4, 2)), zorder=0)
    for i, (arm, row) in enumerate(found.iterrows()):
        half = 0 if np.isnan(row["half"]) else row["half"]
        ends = np.clip([row["mean"] - half, row["mean"] + half], *within)
        axis.plot(ends, [i, i], color="black", linewidth=0.8)
        face = "black" if row["best"] else "white"
        marker = "D" if arm == record.baseline else "o"
        axis.plot(row["mean"], i, marker, color="black", markerfacecolor=face, markersize=3.6)
    axis.set_yticks(range(len(found)), [label(record, str(arm)) for arm in found.index])
    axis.set_ylim(-0.7, len(found) - 0.3)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel(title)
    return figure


def add_legend(figure: Figure, kinds: Mapping[str, Mapping[str, Any]], title: str = "") -> None:
    """A legend below the figure, in as many columns as fit."""
    handles = [Line2D([], [], **shown) for shown in kinds.values()]
    figure.legend(
        handles,
        list(kinds),
        title=title or None,
        title_fontsize=7,
        loc="outside lower center",
        ncols=legend_columns(kinds),
    )


def legend_columns(kinds: Collection[str]) -> int:
    """How many columns of a legend fit side by side."""
    widest = max(map(len, kinds))
    return min(len(kinds), 3 if widest <= 11 else 2 if widest <= 21 else 1)


def legend_height(kinds: Collection[str], title: str = "") -> float:
    """The inches that a legend takes."""
    return ROW * (-(-len(kinds) // legend_columns(kinds)) + bool(title))


def finish(figure: Figure, axes: Any, what: str) -> None:
    """Hides panels without lines, and names the axes at the edges."""
    for column in axes.T:
        used = [axis for axis in column if axis.lines]
        for axis in set(column) - set(used):
            axis.set_visible(False)
        if used:
            used[-1].tick_params(labelbottom=True)
            used[-1].set_xlabel("step")
            used[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.supylabel(what, fontsize=7.5)


def band(
    axis: Axes, curve: pd.DataFrame, shown: Mapping[str, Any], within: tuple[float, float]
) -> None:
    """Draws the mean over seeds and, unless the line is grey, its 95% interval within bounds."""
    mean, half = statistics.intervals(curve.to_numpy())
    axis.plot(curve.index, mean, **shown)
    if shown is not GREY and not np.isnan(half).any():
        low, high = np.clip([mean - half, mean + half], *within)
        axis.fill_between(curve.index, low, high, color=shown["color"], alpha=0.15, linewidth=0)
