"""Figures over training: learning curves, task weights, and gradient conflicts."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmjax.report import data_frames, statistics, table_cells
from mmjax.report import study_results as records
from mmjax.report.figures import (
    GRAY_LINE,
    MAX_LINE_STYLES,
    add_bottom_legend,
    compute_legend_height,
    draw_band,
    finish_panels,
    format_arm_label,
    make_figure,
)
from mmjax.report.study_results import StudyRecord
from mmjax.train.reporting.learning_curves import make_line_styles


def plot_learning_curves(record: StudyRecord) -> Figure | None:
    """Plots the primary metric on the validation split over the steps: means and 95% bands.

    The vertical scale is that of the second half of training.
    """
    shown = records.select_shown_arms(record, record.arms)
    curves = records.select_curves(record, shown, record.metric, "validation")
    curve_of = {arm: curve for arm, curve in curves.items() if len(curve) > 1}
    if not curve_of:
        return None
    bounds = records.get_metric_bounds(record.metric)
    legend_title, panels = _assign_panels(record, list(curve_of))
    kinds = {text: style for lines in panels.values() for text, style in lines.values()}
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    height = (
        (1.9 if columns == 1 else 1.2 * rows) + 0.35 + compute_legend_height(kinds, legend_title)
    )
    figure, axes = make_figure(height, rows, columns, sharex=True, sharey=True)
    for axis, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        axis.set_title(title)
        for arm, (_, style) in lines.items():
            draw_band(axis, curve_of[arm], style, bounds, record.overlap)
        axis.locator_params(axis="x", nbins=4, integer=True)
    # The first steps would flatten the differences at the end, which the reader looks for.
    axes[0, 0].set_ylim(*_compute_late_range(curve_of.values(), bounds, record.overlap))
    finish_panels(
        figure, axes, f"validation {table_cells.format_metric_title(record, record.metric)}"
    )
    add_bottom_legend(figure, kinds, legend_title)
    return figure


def _compute_late_range(
    curves: Iterable[pd.DataFrame],
    bounds: tuple[float, float] = (-np.inf, np.inf),
    overlap: float = 0.0,
) -> tuple[float, float]:
    """Returns the range of means and intervals in the second half of training, with a margin."""
    low, high = np.inf, -np.inf
    for curve in curves:
        late = curve.to_numpy()[len(curve) // 2 :]
        mean, half = statistics.compute_intervals(late, overlap)
        low = min(low, float(np.min(mean - np.nan_to_num(half))))
        high = max(high, float(np.max(mean + np.nan_to_num(half))))
    low, high = np.clip([low, high], *bounds)
    margin = 0.04 * (high - low) or 0.01
    return low - margin, high + margin


_Lines = dict[str, tuple[str, dict[str, Any]]]  # {arm: (text of the legend, line style)}


def _assign_panels(record: StudyRecord, arms: Sequence[str]) -> tuple[str, dict[str, _Lines]]:
    """Assigns lines to panels: returns the legend's title and {title of the panel: lines}.

    With two axes there is one panel per label of the first axis, and one line per label of the
    second. Otherwise all arms share one panel; if there are too many, all but the best and the
    baseline are gray.
    """
    pairs = _get_label_pairs(record, arms)
    first, second = table_cells.list_distinct_labels(pairs.values())
    if len(first) > 1 and 1 < len(second) <= MAX_LINE_STYLES:
        panel_axis, line_axis = table_cells.shorten_axis_names(record)
        styles = dict(zip(second, make_line_styles(), strict=False))
        panels: dict[str, _Lines] = {f"{panel_axis}: {a}": {} for a in first}
        for arm, (a, b) in pairs.items():
            panels[f"{panel_axis}: {a}"][arm] = (b, styles[b])
        return line_axis, panels
    return "", {"": _assign_lines(record, arms)}


def _assign_lines(record: StudyRecord, arms: Sequence[str]) -> _Lines:
    """Returns the line of every arm in one panel; of too many, most are gray."""
    colored = list(arms)
    if len(arms) > MAX_LINE_STYLES:
        means = (
            data_frames.summarize_arms(record, record.metric)["mean"].reindex(list(arms)).dropna()
        )
        up = records.is_larger_better(record, record.metric)
        # Two styles remain: for the baseline and for the gray lines.
        top = means.sort_values(ascending=not up).index[: MAX_LINE_STYLES - 2]
        colored = [arm for arm in arms if arm in top or arm == record.baseline]
    lines: _Lines = {arm: ("others", GRAY_LINE) for arm in arms if arm not in colored}
    for arm, style in zip(colored, make_line_styles(), strict=False):
        lines[arm] = (format_arm_label(record, arm), style)
    return lines


def _get_label_pairs(record: StudyRecord, arms: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Returns {arm: its two labels}; {} unless the study has two axes that distinguish the arms."""
    if len(record.axes) != 2:
        return {}
    pairs = {}
    for arm in arms:
        if record.arms[arm].role == "arm":
            first, second = table_cells.list_arm_labels(record, arm)
            pairs[arm] = (first, second)
    return pairs if len(set(pairs.values())) == len(pairs) else {}


def plot_task_weights(record: StudyRecord) -> Figure | None:
    """Plots the tasks' weights over training, one small panel per arm.

    Arms whose weights never change are left out. None if there are more tasks than line styles.
    """
    if len(record.tasks) > MAX_LINE_STYLES:
        return None
    names = {f"weight/{task}": task for task in record.tasks}
    return _plot_traces(record, names, "weight of the task's loss", constant=False)


def plot_conflicts(record: StudyRecord) -> Figure | None:
    """Plots the share of conflicting pairs of gradients, and the cosines if there are few pairs."""
    logged = record.frame.metric[record.frame.split == "train"].unique()
    pairs = [m for m in logged if m.startswith("cosine/")]
    names = {"conflicts": "share of conflicts"}
    if len(pairs) <= 3:
        names |= {m: f"cosine {m.removeprefix('cosine/').replace(',', ', ')}" for m in pairs}
    return _plot_traces(record, names, "gradients of the tasks")


def _is_constant(curve: pd.DataFrame) -> bool:
    """Returns whether every seed keeps its first value, to float32's precision."""
    values = curve.to_numpy()
    return bool(np.allclose(values, values[:1], rtol=1e-5, atol=1e-7))


def _plot_traces(
    record: StudyRecord, names: Mapping[str, str], label: str, *, constant: bool = True
) -> Figure | None:
    """Plots metrics of training over the steps, one small panel per arm.

    Args:
      record: the study.
      names: {metric: its text in the legend}.
      label: the label of the vertical axis.
      constant: whether arms are shown whose metrics never change.
    """
    bounds = dict(zip(names.values(), map(records.get_metric_bounds, names), strict=True))
    curves_of = _select_traces(record, names, constant=constant)
    if not curves_of:
        return None
    panel_of, columns = _place_small_panels(record, list(curves_of))
    titles = {arm: "\n".join(_wrap_labels(record, arm)) for arm in curves_of}
    lines = 1 + max(title.count("\n") for title in titles.values())
    rows = max(panel_of.values()) // columns + 1
    used = set().union(*curves_of.values())
    styles = dict(zip(names.values(), make_line_styles(), strict=False))
    kinds = {text: styles[text] for text in names.values() if text in used}
    # Inches: a panel, its title line by line, the label of the axis, and the legend.
    height = rows * (0.55 + 0.13 * lines) + 0.35 + compute_legend_height(kinds)
    figure, axes = make_figure(height, rows, columns, sharex=True, sharey=True)
    for arm, logged in curves_of.items():
        axis = axes.flat[panel_of[arm]]
        axis.set_title(titles[arm], fontsize=7, pad=2)
        axis.locator_params(axis="x", nbins=2, integer=True)
        for text, curve in logged.items():
            draw_band(axis, curve, styles[text], bounds[text], record.overlap)
    finish_panels(figure, axes, label)
    add_bottom_legend(figure, kinds)
    return figure


def _select_traces(
    record: StudyRecord, names: Mapping[str, str], *, constant: bool
) -> dict[str, dict[str, pd.DataFrame]]:
    """Selects {arm: {text of a metric: its curve in training}}, of curves with several steps.

    Args:
      record: the study.
      names: {metric: its text}.
      constant: whether arms are selected whose metrics never change.
    """
    arms = records.select_shown_arms(record, records.select_arms_by_role(record, "arm"))
    curves_of: dict[str, dict[str, pd.DataFrame]] = {}
    for metric, text in names.items():
        for arm, curve in records.select_curves(record, arms, metric, "train").items():
            if len(curve) > 1:
                curves_of.setdefault(arm, {})[text] = curve
    selected = {}
    for arm in filter(curves_of.__contains__, arms):
        if constant or not all(map(_is_constant, curves_of[arm].values())):
            selected[arm] = curves_of[arm]
    return selected


def _place_small_panels(record: StudyRecord, arms: Sequence[str]) -> tuple[dict[str, int], int]:
    """Returns {arm: index of its panel} and the number of columns.

    With two axes there is one row per label of the first and one column per label of the second.
    """
    pairs = _get_label_pairs(record, arms)
    first, second = table_cells.list_distinct_labels(pairs.values())
    if 1 < len(second) <= 4:
        panels = {}
        for arm, (a, b) in pairs.items():
            panels[arm] = first.index(a) * len(second) + second.index(b)
        return panels, len(second)
    return dict(zip(arms, range(len(arms)), strict=True)), min(4, len(arms))


def _wrap_labels(record: StudyRecord, arm: str) -> list[str]:
    """Returns the lines of a small panel's title: an arm's labels, wrapped if they are long."""
    lines = []
    for text in table_cells.list_arm_labels(record, arm):
        lines += textwrap.wrap(text, 14)
    return lines
