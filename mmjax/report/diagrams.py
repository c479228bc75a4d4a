"""Two diagrams of a study: critical differences of ranks, and Pareto fronts."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmjax.report import data_frames, statistics, tables
from mmjax.report import study_results as records
from mmjax.report.figures import ROW, canvas, label, legend_columns
from mmjax.report.study_results import Record


def critical_difference(record: Record) -> Figure | None:
    """Mean ranks of the arms, a row each; bars join those that do not differ significantly.

    It is Demšar's diagram (JMLR 2006) turned upright, so that long names and many arms fit.
    """
    ranked = data_frames.primary_ranks(record)
    if ranked is None:
        return None
    arms, found = ranked
    order = np.argsort(-found.mean, kind="stable")
    mean = found.mean[order]
    bars = statistics.cliques(mean, found.critical)
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
    length = min(found.critical, len(arms) - 1)
    axis.plot([1, 1 + length], [len(order) + 0.1] * 2, "k-|", linewidth=0.8, markersize=5)
    text = f"critical difference {found.critical:.2f}"
    axis.text(1 + length / 2, len(order) + 0.25, text, ha="center", va="bottom", fontsize=7)
    axis.set_yticks(rows, [label(record, arms[i]) for i in order])
    axis.set_ylim(-0.7, len(order) + 1.1)
    axis.set_xlim(1 - 0.3 * gap, len(arms) + gap * (len(bars) + 1))
    axis.set_xticks(range(1, len(arms) + 1, -(-(len(arms) - 1) // 6)))
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel(f"mean rank over {found.blocks} seeds (1 is best)")
    return figure


def front_of_tasks(record: Record) -> Figure | None:
    """The first two tasks' metrics against each other."""
    metrics = records.task_metrics(record)
    if len(metrics) < 2:
        return None
    y, x = (measured(record, metric) for metric in metrics[:2])
    return front(record, x, y)


def front_of_cost(record: Record) -> Figure | None:
    """The primary metric against the cost of a training step."""
    costs = data_frames.costs(record)
    known = [name for name in ("MFLOP/step", "ms/step", "parameters") if name in costs]
    if not known:
        return None
    cost = pd.DataFrame({"mean": costs[known[0]], "half": np.nan})
    wide = cost["mean"].max() > 10 * cost["mean"].min() > 0
    y = measured(record, record.metric)
    return front(record, Measure(f"{known[0]} ↓", cost, False, log=wide), y)


class Measure(NamedTuple):
    """One axis of a front: its title, mean and half interval of every arm, which way is better."""

    title: str
    found: pd.DataFrame
    up: bool
    log: bool = False
    within: tuple[float, float] = (-np.inf, np.inf)


def measured(record: Record, metric: str) -> Measure:
    """A test metric as a measure."""
    found = data_frames.summary(record, metric)[["mean", "half"]]
    up, within = records.larger_is_better(record, metric), records.bounds(metric)
    return Measure(tables.title(record, metric), found, up, within=within)


def front(record: Record, x: Measure, y: Measure) -> Figure | None:
    """Arms by two measures with their intervals; those that no arm beats in both are numbered."""
    points = x.found.add_suffix("_x").join(y.found.add_suffix("_y"), how="inner")
    points = points.dropna(subset=["mean_x", "mean_y"])
    if len(points) < 2:
        return None
    px, py = points.mean_x, points.mean_y
    on = efficient(px if x.up else -px, py if y.up else -py)
    best = points[on].sort_values(["mean_x", "mean_y"])
    names = [f"{i}  {label(record, str(arm))}" for i, arm in enumerate(best.index, 1)]
    columns = legend_columns(names)
    figure, axes = canvas(2.2 + ROW * (1 + -(-len(names) // columns)))
    axis = axes[0, 0]
    errors = [
        reach(points[f"mean_{which}"], points[f"half_{which}"], measure.within)
        for which, measure in (("x", x), ("y", y))
    ]
    axis.errorbar(px, py, errors[1], errors[0], fmt="none", ecolor="0.8", elinewidth=0.6)
    own = np.array([record.arms[str(arm)].role == "arm" for arm in points.index])
    for kind, marker, text in ((own, "o", "arm"), (~own, "x", "single task or modality")):
        if (kind & ~on).any():
            shown = {"color": "0.45", "markersize": 3.4, "fillstyle": "none", "label": text}
            axis.plot(px[kind & ~on], py[kind & ~on], marker, **shown)
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


def reach(mean: pd.Series, half: pd.Series, within: tuple[float, float]) -> np.ndarray:
    """How far intervals reach below and above their means, as far as values can go."""
    half = half.fillna(0)
    ends = np.clip([mean - half, mean + half], *within)
    return np.abs(ends - mean.to_numpy())


def number(axis: Axes, best: pd.DataFrame, x_up: bool, y_up: bool) -> None:
    """Writes the numbers of the front's points outside of it, one text for those close together."""
    places = best[["mean_x", "mean_y"]].to_numpy()
    seen = axis.transAxes.inverted().transform(axis.transData.transform(places))
    groups = [[0]]
    for i in range(1, len(places)):
        near = (np.abs(seen[i] - seen[groups[-1][0]]) < [0.05, 0.07]).all()
        groups = [*groups[:-1], [*groups[-1], i]] if near else [*groups, [i]]
    for group in groups:
        text = str(group[0] + 1) + (f"–{group[-1] + 1}" if len(group) > 1 else "")
        axis.annotate(
            text,
            tuple(places[group].mean(axis=0)),
            (3 if x_up else -3, 3 if y_up else -3),
            textcoords="offset points",
            ha="left" if x_up else "right",
            va="bottom" if y_up else "top",
            fontsize=7,
        )


def efficient(x: pd.Series, y: pd.Series) -> np.ndarray:
    """Which points no other beats: at least as large in both, and larger in one."""
    a, b = x.to_numpy(), y.to_numpy()
    as_good = (a[None] >= a[:, None]) & (b[None] >= b[:, None])
    better = as_good & ((a[None] > a[:, None]) | (b[None] > b[:, None]))
    return ~better.any(axis=1)
