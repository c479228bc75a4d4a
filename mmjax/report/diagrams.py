"""Diagrams of a study: critical differences of ranks, and Pareto fronts."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmjax.report import data_frames, statistics, table_cells
from mmjax.report import study_results as records
from mmjax.report.figures import ROW, canvas, label, legend_columns
from mmjax.report.study_results import Record


def critical_difference(record: Record) -> Figure | None:
    """Plots the mean ranks, one row per arm; bars join arms that do not differ significantly.

    It is Demšar's diagram (JMLR 2006), rotated so that long names and many arms fit.
    """
    ranked = data_frames.primary_ranks(record)
    if ranked is None:
        return None
    arms, ranks = ranked
    order = np.argsort(-ranks.mean, kind="stable")
    mean = ranks.mean[order]
    bars = statistics.cliques(mean, ranks.critical)
    figure, axes = canvas(0.65 + ROW * len(order))
    axis = axes[0, 0]
    rows = np.arange(len(order))
    axis.hlines(rows, 1, mean, color="0.8", linewidth=0.6)
    axis.plot(mean, rows, "o", color="black", markersize=3.6)
    gap = 0.04 * len(arms)
    for i, (first, last) in enumerate(bars):
        joined = rows[(mean >= first) & (mean <= last)]
        x = len(arms) + gap * (i + 1)
        axis.plot([x, x], [joined[0] - 0.3, joined[-1] + 0.3], color="black", linewidth=1.8)
    # The scale bar: the length of the critical difference.
    length = min(ranks.critical, len(arms) - 1)
    axis.plot([1, 1 + length], [len(order) + 0.1] * 2, "k-|", linewidth=0.8, markersize=5)
    text = f"critical difference {ranks.critical:.2f}"
    axis.text(1 + length / 2, len(order) + 0.25, text, ha="center", va="bottom", fontsize=7)
    axis.set_yticks(rows, [label(record, arms[i]) for i in order])
    axis.set_ylim(-0.7, len(order) + 1.1)
    axis.set_xlim(1 - 0.3 * gap, len(arms) + gap * (len(bars) + 1))
    axis.set_xticks(range(1, len(arms) + 1, -(-(len(arms) - 1) // 6)))
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel(f"mean rank over {ranks.blocks} seeds (1 is best)")
    return figure


def front_of_tasks(record: Record) -> Figure | None:
    """Plots the metrics of the first two tasks against each other."""
    metrics = records.task_metrics(record)
    if len(metrics) < 2:
        return None
    y, x = (measured(record, metric) for metric in metrics[:2])
    return front(record, x, y)


def front_of_cost(record: Record) -> Figure | None:
    """Plots the primary metric against the cost of a training step."""
    costs = data_frames.costs(record)
    known = [name for name in ("MFLOP/step", "ms/step", "parameters") if name in costs]
    if not known:
        return None
    cost = pd.DataFrame({"mean": costs[known[0]], "half": np.nan})
    spans_decades = cost["mean"].max() > 10 * cost["mean"].min() > 0
    y = measured(record, record.metric)
    return front(record, Measure(f"{known[0]} ↓", cost, False, log=spans_decades), y)


class Measure(NamedTuple):
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


def measured(record: Record, metric: str) -> Measure:
    """Returns a test metric as an axis of a front."""
    values = data_frames.summary(record, metric)[["mean", "half"]]
    up, bounds = records.larger_is_better(record, metric), records.bounds(metric)
    return Measure(table_cells.title(record, metric), values, up, bounds=bounds)


def front(record: Record, x: Measure, y: Measure) -> Figure | None:
    """Plots arms by two measures with intervals; the arms on the Pareto front are numbered."""
    points = x.values.add_suffix("_x").join(y.values.add_suffix("_y"), how="inner")
    points = points.dropna(subset=["mean_x", "mean_y"])
    if len(points) < 2:
        return None
    px, py = points.mean_x, points.mean_y
    on_front = efficient(px if x.up else -px, py if y.up else -py)
    best = points[on_front].sort_values(["mean_x", "mean_y"])
    names = [f"{i}  {label(record, str(arm))}" for i, arm in enumerate(best.index, 1)]
    columns = legend_columns(names)
    figure, axes = canvas(2.2 + ROW * (1 + -(-len(names) // columns)))
    axis = axes[0, 0]
    x_errors = reach(px, points.half_x, x.bounds)
    y_errors = reach(py, points.half_y, y.bounds)
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
    number(axis, best, x.up, y.up)
    if axis.get_legend_handles_labels()[1]:
        figure.legend(loc="outside upper center", ncols=2, handlelength=1)
    blank = [Line2D([], [], linestyle="") for _ in names]
    figure.legend(
        blank,
        names,
        title="Pareto front",
        title_fontsize=7,
        loc="outside lower center",
        ncols=columns,
        handlelength=0,
    )
    return figure


def reach(mean: pd.Series, half: pd.Series, bounds: tuple[float, float]) -> np.ndarray:
    """Computes how far intervals extend below and above their means, cut at the bounds."""
    half = half.fillna(0)
    ends = np.clip([mean - half, mean + half], *bounds)
    return np.abs(ends - mean.to_numpy())


def number(axis: Axes, best: pd.DataFrame, x_up: bool, y_up: bool) -> None:
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


def efficient(x: pd.Series, y: pd.Series) -> np.ndarray:
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
