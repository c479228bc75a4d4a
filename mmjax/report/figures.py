"""Figures of a study's report, as wide as a LaTeX column and readable in black and white.

Each plotting function returns a figure, or None if it does not apply to the study.
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

from mmjax.printing.escapes import escape_control_characters
from mmjax.report import data_frames, statistics, table_cells
from mmjax.report import study_results as records
from mmjax.report.study_results import StudyRecord

_COLUMN_WIDTH = 3.3  # inches, of a column in a two-column paper
LINE_HEIGHT = 0.155  # inches per line of text
MAX_LINE_STYLES = 7  # number of line styles that differ without color
GRAY_LINE = {"color": "0.75", "linestyle": "-", "linewidth": 0.6, "zorder": 0}  # background lines
_RC_SETTINGS: Any = {
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
    "pdf.fonttype": 42,  # TrueType, which publishers require
    "savefig.dpi": 300,
}


def use_figure_style() -> Any:
    """Returns a context in which Matplotlib uses the settings of all figures."""
    return mpl.rc_context(_RC_SETTINGS)


def make_figure(
    height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """Makes a figure of a column's width and the given height in inches, and its axes."""
    figure = Figure(figsize=(_COLUMN_WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0)  # type: ignore[union-attr, call-arg]
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes the figure as PNG and PDF, without a time stamp, so that the bytes repeat."""
    for text in figure.findobj(Text):
        text.set_text(escape_control_characters(text.get_text(), keep="\n"))
    with use_figure_style():
        figure.savefig(path.with_suffix(".png"))
        figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})


def format_arm_label(record: StudyRecord, arm: str) -> str:
    """Formats the name of an arm in figures: its labels."""
    return escape_control_characters(
        ", ".join(filter(None, table_cells.list_arm_labels(record, arm)))
    )


def plot_scores(record: StudyRecord) -> Figure | None:
    """Plots the primary metric of every arm with its interval, and a line at the baseline."""
    summary = data_frames.summarize_arms(record, record.metric)
    if summary.empty:
        return None
    baseline = summary["mean"].get(record.baseline)
    title = table_cells.format_metric_title(record, record.metric)
    up = records.is_larger_better(record, record.metric)
    bounds = records.get_metric_bounds(record.metric)
    return _plot_dots(record, summary, title, up=up, line=baseline, bounds=bounds)


def plot_delta_m(record: StudyRecord) -> Figure | None:
    """Plots Δm of every arm with its interval; a line at zero, the single-task arms."""
    try:
        values = data_frames.compute_delta_m(record)
    except ValueError:  # Δm is undefined; the note of the first table explains why
        values = None
    if values is None or values.empty:
        return None
    array, overlap = values.to_numpy(), record.overlap
    mean, half = statistics.compute_intervals(array, overlap)
    best = statistics.find_best_arms(array, maximize=True, overlap=overlap)
    summary = pd.DataFrame({"mean": mean, "half": half, "best": best}, index=values.index)
    return _plot_dots(record, summary, "Δm % ↑ (line: single-task arms)", up=True, line=0.0)


def _plot_dots(
    record: StudyRecord,
    summary: pd.DataFrame,
    title: str,
    *,
    up: bool,
    line: float | None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Figure:
    """Plots means and intervals, one row per arm; full dots mark the best arms.

    Args:
      record: the study.
      summary: the columns mean, half and best, one row per arm.
      title: the label of the horizontal axis.
      up: whether larger values are better.
      line: where a vertical line is drawn, if anywhere.
      bounds: smallest and largest possible value, at which intervals are cut.
    """
    summary = summary.loc[records.select_shown_arms(record, summary.index)]
    summary = summary.sort_values("mean", ascending=up)
    figure, axes = make_figure(0.45 + LINE_HEIGHT * len(summary))
    axis = axes[0, 0]
    if line is not None:
        axis.axvline(line, color="0.5", linewidth=0.7, linestyle=(0, (4, 2)), zorder=0)
    for i, (arm, row) in enumerate(summary.iterrows()):
        half = 0 if np.isnan(row["half"]) else row["half"]  # one seed has no interval
        ends = np.clip([row["mean"] - half, row["mean"] + half], *bounds)
        axis.plot(ends, [i, i], color="black", linewidth=0.8)
        face = "black" if row["best"] else "white"
        marker = "D" if arm == record.baseline else "o"
        axis.plot(row["mean"], i, marker, color="black", markerfacecolor=face, markersize=3.6)
    axis.set_yticks(
        range(len(summary)), [format_arm_label(record, str(arm)) for arm in summary.index]
    )
    axis.set_ylim(-0.7, len(summary) - 0.3)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel(title)
    return figure


def add_bottom_legend(
    figure: Figure, kinds: Mapping[str, Mapping[str, Any]], title: str = ""
) -> None:
    """Adds a legend of {text: line style} below the figure, in as many columns as fit."""
    handles = [Line2D([], [], **line_style) for line_style in kinds.values()]
    figure.legend(
        handles,
        list(kinds),
        title=title or None,
        title_fontsize=7,
        loc="outside lower center",
        ncols=count_legend_columns(kinds),
    )


def count_legend_columns(kinds: Collection[str]) -> int:
    """Returns how many columns of a legend fit side by side."""
    widest = max(map(len, kinds))
    return min(len(kinds), 3 if widest <= 11 else 2 if widest <= 21 else 1)


def compute_legend_height(kinds: Collection[str], title: str = "") -> float:
    """Returns the height of a legend in inches."""
    return LINE_HEIGHT * (-(-len(kinds) // count_legend_columns(kinds)) + bool(title))


def finish_panels(figure: Figure, axes: Any, label: str) -> None:
    """Hides panels without lines, and labels the axes at the edges."""
    for column in axes.T:
        used = [axis for axis in column if axis.lines]
        for axis in set(column) - set(used):
            axis.set_visible(False)
        if used:
            used[-1].tick_params(labelbottom=True)
            used[-1].set_xlabel("step")
            used[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.supylabel(label, fontsize=7.5)


def draw_band(
    axis: Axes,
    curve: pd.DataFrame,
    line_style: Mapping[str, Any],
    bounds: tuple[float, float],
    overlap: float,
) -> None:
    """Draws the mean over seeds and, unless the line is gray, its 95% interval within bounds.

    For `overlap` see `statistics.compute_intervals`.
    """
    mean, half = statistics.compute_intervals(curve.to_numpy(), overlap)
    axis.plot(curve.index, mean, **line_style)
    if line_style is not GRAY_LINE and not np.isnan(half).any():
        low, high = np.clip([mean - half, mean + half], *bounds)
        color = line_style["color"]
        axis.fill_between(curve.index, low, high, color=color, alpha=0.15, linewidth=0)
