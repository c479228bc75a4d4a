"""What happens over training, as figures: learning curves, weights, conflicts of gradients."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmjax.report import data_frames, statistics, tables
from mmjax.report import study_results as records
from mmjax.report.figures import (
    GREY,
    STYLES,
    add_legend,
    band,
    canvas,
    finish,
    label,
    legend_height,
)
from mmjax.report.study_results import Record
from mmjax.train.learning_curves import line_styles


def curves(record: Record) -> Figure | None:
    """The primary metric on the validation split over the steps: means and 95% bands.

    The vertical scale is that of the second half of training.
    """
    found = {arm: records.curve(record, arm, record.metric, "validation") for arm in record.arms}
    found = {arm: curve for arm, curve in found.items() if len(curve) > 1}
    if not found:
        return None
    within = records.bounds(record.metric)
    what, panels = shared_panels(record, list(found))
    kinds = {text: shown for lines in panels.values() for text, shown in lines.values()}
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    height = (1.9 if columns == 1 else 1.2 * rows) + 0.35 + legend_height(kinds, what)
    figure, axes = canvas(height, rows, columns, sharex=True, sharey=True)
    for axis, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        axis.set_title(title)
        for arm, (_, shown) in lines.items():
            band(axis, found[arm], shown, within)
        axis.locator_params(axis="x", nbins=4, integer=True)
    axes[0, 0].set_ylim(*late_range(found.values(), within))
    finish(figure, axes, f"validation {tables.title(record, record.metric)}")
    add_legend(figure, kinds, what)
    return figure


def late_range(
    curves: Iterable[pd.DataFrame], within: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, float]:
    """What the means and intervals of the second half of training span, and a little more."""
    late = [statistics.intervals(curve.to_numpy()[len(curve) // 2 :]) for curve in curves]
    low = min(float(np.min(mean - np.nan_to_num(half))) for mean, half in late)
    high = max(float(np.max(mean + np.nan_to_num(half))) for mean, half in late)
    low, high = np.clip([low, high], *within)
    room = 0.04 * (high - low) or 0.01
    return low - room, high + room


Lines = dict[str, tuple[str, dict[str, Any]]]  # {arm: (what the legend calls it, how it is drawn)}


def shared_panels(record: Record, arms: Sequence[str]) -> tuple[str, dict[str, Lines]]:
    """Which lines share a panel: the legend's title and {title of the panel: lines}.

    With two axes a panel holds the arms of one label of the first and its lines are the labels of
    the second. Otherwise all arms share one; of many, the best and the baseline stand out in it.
    """
    places = two_axes(record, arms)
    first, second = (list(dict.fromkeys(p[i] for p in places.values())) for i in (0, 1))
    if len(first) > 1 and 1 < len(second) <= STYLES:
        panel, line = tables.axis_names(record)
        styles = dict(zip(second, line_styles(), strict=False))
        panels: dict[str, Lines] = {f"{panel}: {a}": {} for a in first}
        for arm, (a, b) in places.items():
            panels[f"{panel}: {a}"][arm] = (b, styles[b])
        return line, panels
    chosen = list(arms)
    if len(arms) > STYLES:
        means = data_frames.summary(record, record.metric)["mean"].reindex(list(arms)).dropna()
        up = records.larger_is_better(record, record.metric)
        top = means.sort_values(ascending=not up).index[: STYLES - 2]
        chosen = [a for a in arms if a in top or a == record.baseline]
    lines: Lines = {arm: ("others", GREY) for arm in arms if arm not in chosen}
    styles = dict(zip(chosen, line_styles(), strict=False))
    return "", {"": lines | {arm: (label(record, arm), styles[arm]) for arm in chosen}}


def two_axes(record: Record, arms: Sequence[str]) -> dict[str, tuple[str, str]]:
    """{arm: its two labels}; nothing unless the study has two axes that tell the arms apart."""
    if len(record.axes) != 2:
        return {}
    own = [arm for arm in arms if record.arms[arm].role == "arm"]
    labels = {arm: [cell.text for cell in tables.names(record, arm)] for arm in own}
    places = {arm: (first, second) for arm, (first, second) in labels.items()}
    return places if len(set(places.values())) == len(own) else {}


def weights(record: Record) -> Figure | None:
    """The tasks' weights over training, a small panel per arm; not of more tasks than styles.

    Arms whose weights never change are left out.
    """
    if len(record.tasks) > STYLES:
        return None
    names = {f"weight/{task}": task for task in record.tasks}
    return traces(record, names, "weight of a task's loss", constant=False)


def conflicts(record: Record) -> Figure | None:
    """The share of conflicting pairs of gradients over training, and the cosines of a few pairs."""
    logged = record.frame.metric[record.frame.split == "train"].unique()
    pairs = [m for m in logged if m.startswith("cosine/")]
    names = {"conflicts": "share of conflicts"}
    if len(pairs) <= 3:
        names |= {m: f"cosine {m.removeprefix('cosine/').replace(',', ', ')}" for m in pairs}
    return traces(record, names, "gradients of the tasks")


def is_constant(curve: pd.DataFrame) -> bool:
    """Returns whether every seed keeps its first value, to float32's precision."""
    values = curve.to_numpy()
    return bool(np.allclose(values, values[:1], rtol=1e-5, atol=1e-7))


def traces(
    record: Record, names: Mapping[str, str], what: str, *, constant: bool = True
) -> Figure | None:
    """Draws metrics of training over the steps, a small panel per arm.

    Args:
      record: the study.
      names: {metric: what it is called}.
      what: the label of the vertical axis.
      constant: whether arms are drawn whose metrics never change.
    """
    within = {text: records.bounds(metric) for metric, text in names.items()}
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for arm in records.with_role(record, "arm"):
        logged = {text: records.curve(record, arm, m, "train") for m, text in names.items()}
        found[arm] = {text: curve for text, curve in logged.items() if len(curve) > 1}
    found = {
        arm: logged
        for arm, logged in found.items()
        if logged and (constant or not all(map(is_constant, logged.values())))
    }
    if not found:
        return None
    places, columns = small_panels(record, list(found))
    titles = {arm: "\n".join(wrapped(record, arm)) for arm in found}
    lines = max(title.count("\n") + 1 for title in titles.values())
    rows = max(places.values()) // columns + 1
    there = {text for logged in found.values() for text in logged}
    styles = dict(zip(names.values(), line_styles(), strict=False))
    kinds = {text: styles[text] for text in names.values() if text in there}
    height = rows * (0.55 + 0.13 * lines) + 0.35 + legend_height(kinds)
    figure, axes = canvas(height, rows, columns, sharex=True, sharey=True)
    for arm, logged in found.items():
        axis = axes.flat[places[arm]]
        axis.set_title(titles[arm], fontsize=7, pad=2)
        axis.locator_params(axis="x", nbins=2, integer=True)
        for text, curve in logged.items():
            band(axis, curve, styles[text], within[text])
    finish(figure, axes, what)
    add_legend(figure, kinds)
    return figure


def small_panels(record: Record, arms: Sequence[str]) -> tuple[dict[str, int], int]:
    """{arm: number of its panel} and the number of columns, a column a label of the second axis."""
    places = two_axes(record, arms)
    first, second = (list(dict.fromkeys(p[i] for p in places.values())) for i in (0, 1))
    if 1 < len(second) <= 4:
        at = {arm: (first.index(a), second.index(b)) for arm, (a, b) in places.items()}
        return {arm: i * len(second) + j for arm, (i, j) in at.items()}, len(second)
    return {arm: i for i, arm in enumerate(arms)}, min(4, len(arms))


def wrapped(record: Record, arm: str) -> list[str]:
    """The lines of a small panel's title: an arm's labels, broken where they are long."""
    texts = [cell.text for cell in tables.names(record, arm) if cell.text]
    return [line for text in texts for line in textwrap.wrap(text, 14)]
