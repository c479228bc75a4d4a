"""Diagrams of a study: critical differences of ranks, and Pareto fronts."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmjax.report import data_frames, rank_tests, table_cells
from mmjax.report import study_results as records
from mmjax.report.figures import LINE_HEIGHT, count_legend_columns, format_arm_label, make_figure
from mmjax.report.study_results import StudyRecord


def plot_critical_difference(record: StudyRecord) -> Figure | None:
    """Plots the mean ranks, one row per arm; bars join arms that do not differ significantly.

    It is Demšar's diagram (JMLR 2006), rotated so that long names and many arms fit. There is none
    for more arms than figures show: the critical difference would be most of the ranks.
    """
    ranked = data_frames.compute_rank_tests(record)
    if ranked is None or len(ranked[0]) > records.MAX_SHOWN_ARMS:
        return None
    arms, ranks = ranked
    order = np.argsort(-ranks.mean, kind="stable")
    mean = ranks.mean[order]
    bars = rank_tests.find_cliques(mean, ranks.critical)
    figure, axes = make_figure(0.65 + LINE_HEIGHT * len(order))
    axis = axes[0, 0]
    rows = np.arange(len(order))
    axis.hlines(rows, 1, mean, color="0.8", linewidth=0.6)
    axis.plot(mean, rows, "o", color="black", markersize=3.6)
    gap = 0.04 * len(arms)
    for i, (first, last) in enumerate(bars):
        # A bar per clique, beside the last rank, from its first arm to its last.
        joined = rows[(mean >= first) & (mean <= last)]
        x = len(arms) + gap * (i + 1)
        axis.plot([x, x], [joined[0] - 0.3, joined[-1] + 0.3], color="black", linewidth=1.8)
    # The scale bar: the length of the critical difference.
    length = min(ranks.critical, len(arms) - 1)
    axis.plot([1, 1 + length], [len(order) + 0.1] * 2, "k-|", linewidth=0.8, markersize=5)
    text = f"critical difference {ranks.critical:.2f}"
    axis.text(1 + length / 2, len(order) + 0.25, text, ha="center", va="bottom", fontsize=7)
    axis.set_yticks(rows, [format_arm_label(record, arms[i]) for i in order])
    axis.set_ylim(-0.7, len(order) + 1.1)
    axis.set_xlim(1 - 0.3 * gap, len(arms) + gap * (len(bars) + 1))
    axis.set_xticks(range(1, len(arms) + 1, -(-(len(arms) - 1) // 6)))
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel(f"mean rank over {ranks.blocks} seeds (1 is best)")
    return figure


def plot_task_front(record: StudyRecord) -> Figure | None:
    """Plots the metrics of the first two tasks against each other."""
    metrics = records.choose_task_metrics(record)
    if len(metrics) < 2:
        return None
    y, x = (_make_measure(record, metric) for metric in metrics[:2])
    return _plot_front(record, x, y)


def plot_cost_front(record: StudyRecord) -> Figure | None:
    """Plots the primary metric against the cost of a training step."""
    costs = data_frames.collect_costs(record)
    known = [name for name in ("MFLOP/step", "ms/step", "parameters") if name in costs]
    if not known:
        return None
    cost = pd.DataFrame({"mean": costs[known[0]], "half": np.nan})
    spans_decades = cost["mean"].max() > 10 * cost["mean"].min() > 0
    y = _make_measure(record, record.metric)
    return _plot_front(record, _Measure(f"{known[0]} ↓", cost, False, log=spans_decades), y)


class _Measure(NamedTuple):
    """One axis of a Pareto front.

    Attributes:
      title: its label.
      values: mean and half interval of every arm.
      up: whether larger values are better.
      log: whether the scale is logarithmic.
      bounds: smallest and largest possible value.
    """

    title: str
    values: pd.DataFrame
    up: bool
    log: bool = False
    bounds: tuple[float, float] = (-np.inf, np.inf)


def _make_measure(record: StudyRecord, metric: str) -> _Measure:
    """Returns a test metric as an axis of a front."""
    values = data_frames.summarize_arms(record, metric)[["mean", "half"]]
    up, bounds = records.is_larger_better(record, metric), records.get_metric_bounds(metric)
    return _Measure(table_cells.format_metric_title(record, metric), values, up, bounds=bounds)


def _plot_front(record: StudyRecord, x: _Measure, y: _Measure) -> Figure | None:
    """Plots arms by two measures with intervals; the arms on the Pareto front are numbered."""
    points = x.values.add_suffix("_x").join(y.values.add_suffix("_y"), how="inner")
    points = points.dropna(subset=["mean_x", "mean_y"])
    if len(points) < 2:
        return None
    px, py = points.mean_x, points.mean_y
    on_front = find_pareto_efficient(px if x.up else -px, py if y.up else -py)
    best = points[on_front].sort_values(["mean_x", "mean_y"])
    names = [f"{i}  {format_arm_label(record, str(arm))}" for i, arm in enumerate(best.index, 1)]
    columns = count_legend_columns(names)
    figure, axes = make_figure(2.2 + LINE_HEIGHT * (1 + -(-len(names) // columns)))
    axis = axes[0, 0]
    x_errors = _compute_error_bars(px, points.half_x, x.bounds)
    y_errors = _compute_error_bars(py, points.half_y, y.bounds)
    axis.errorbar(px, py, y_errors, x_errors, fmt="none", ecolor="0.8", elinewidth=0.6)
    is_arm = np.array([record.arms[str(arm)].role == "arm" for arm in points.index])
    for kind, marker, text in ((is_arm, "o", "arm"), (~is_arm, "x", "single task or modality")):
        behind = kind & ~on_front
        if behind.any():
            options = {"color": "0.45", "markersize": 3.4, "fillstyle": "none", "label": text}
            axis.plot(px[behind], py[behind], marker, **options)
    step = "steps-pre" if x.up else "steps-post"
    axis.plot(best.mean_x, best.mean_y, "k-o", markersize=4, drawstyle=step, linewidth=0.8)
    axis.set_xlabel(x.title)
    axis.set_ylabel(y.title)
    if x.log:
        axis.set_xscale("log")
    else:
        axis.locator_params(axis="x", nbins=6)
    _number_points(axis, best, x.up, y.up)
    if axis.get_legend_handles_labels()[1]:
        figure.legend(loc="outside upper center", ncols=2, handlelength=1)
    figure.legend(
        [Line2D([], [], linestyle="")] * len(names),  # names only
        names,
        title="Pareto front",
        title_fontsize=7,
        loc="outside lower center",
        ncols=columns,
        handlelength=0,
    )
    return figure


def _compute_error_bars(
    mean: pd.Series, half: pd.Series, bounds: tuple[float, float]
) -> np.ndarray:
    """Computes how far intervals extend below and above their means, cut at the bounds."""
    half = half.fillna(0)
    ends = np.clip([mean - half, mean + half], *bounds)
    return np.abs(ends - mean.to_numpy())


def _number_points(axis: Axes, best: pd.DataFrame, x_up: bool, y_up: bool) -> None:
    """Writes the numbers of the front's points beside it, one text for points close together."""
    points = best[["mean_x", "mean_y"]].to_numpy()
    in_axes = axis.transAxes.inverted().transform(axis.transData.transform(points))
    groups = [[0]]
    for i in range(1, len(points)):
        # Closer than this fraction of the axes, the numbers would overlap.
        if (np.abs(in_axes[i] - in_axes[groups[-1][0]]) < [0.05, 0.07]).all():
            groups[-1].append(i)
        else:
            groups.append([i])
    for group in groups:
        text = str(group[0] + 1) + (f"–{group[-1] + 1}" if len(group) > 1 else "")
        axis.annotate(
            text,
            tuple(points[group].mean(axis=0)),
            (3 if x_up else -3, 3 if y_up else -3),
            textcoords="offset points",
            ha="left" if x_up else "right",
            va="bottom" if y_up else "top",
            fontsize=7,
        )


def find_pareto_efficient(x: pd.Series, y: pd.Series) -> np.ndarray:
    """Returns which points are on the Pareto front of larger values.

    No other point is at least as large in both coordinates and larger in one.

    Example:
      >>> find_pareto_efficient(pd.Series([1, 2, 1]), pd.Series([2, 1, 1])).tolist()
      [True, True, False]
    """
    a, b = x.to_numpy(), y.to_numpy()
    as_good = (a[None] >= a[:, None]) & (b[None] >= b[:, None])
    better = as_good & ((a[None] > a[:, None]) | (b[None] > b[:, None]))
    return ~better.any(axis=1)
