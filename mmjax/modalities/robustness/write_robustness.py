"""Writes what a robustness suite measured: JSON, a table, a figure, and a paragraph in words."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import files
from mmjax.modalities.robustness.conditions import ALL
from mmjax.modalities.robustness.corruption_table import MISSING
from mmjax.modalities.robustness.measure import Robustness, RobustnessCurve
from mmjax.modalities.robustness.summary import RobustnessSummary, summarize_robustness
from mmjax.printing.escapes import escape_control_characters, format_markdown_table
from mmjax.report.number_format import count_decimals, format_fixed, format_interval


def write_robustness(
    directory: Path, robustness: Robustness, baseline: Robustness | None = None
) -> str:
    """Writes `robustness.json`, `robustness.md` and `robustness.png`.

    The directory is made if it does not exist. `baseline` is of another model under the same
    conditions.

    Returns:
      The paragraph, which also opens the Markdown file.
    """
    summaries = summarize_robustness(robustness, baseline)
    directory.mkdir(parents=True, exist_ok=True)
    content = {"model": convert_to_json(robustness), "measures": [s._asdict() for s in summaries]}
    if baseline is not None:
        content["baseline"] = convert_to_json(baseline)
    files.write_json(directory / "robustness.json", _replace_nan(content))
    words = describe_robustness(robustness, summaries)
    table = format_markdown_table(_make_rows(robustness, summaries), 3, escape=True)
    text = f"# Robustness\n\n{words}\n\n{table}\n{_explain_table(robustness)}\n"
    files.write_text(directory / "robustness.md", escape_control_characters(text, keep="\n"))
    from mmjax.train.reporting.class_figures import save_png

    save_png(plot_robustness(robustness, baseline), directory / "robustness.png")
    return words


def convert_to_json(robustness: Robustness) -> dict[str, Any]:
    """Converts what was measured to dictionaries, lists, strings and numbers."""
    curves = []
    for curve in robustness.curves:
        values = {metric: array.tolist() for metric, array in curve.values.items()}
        curves.append(curve._asdict() | {"values": values})
    return robustness._asdict() | {"curves": curves, "directions": dict(robustness.directions)}


def describe_robustness(robustness: Robustness, summaries: Sequence[RobustnessSummary]) -> str:
    """Says in words what each task loses most and least by, and what the baseline loses."""
    sentences = []
    highest = f"at level {robustness.levels[-1]:g}"
    for metric in robustness.main_metrics:
        of_metric = [s for s in summaries if s.metric == metric]
        alone = [s for s in of_metric if s.modality != ALL]
        sign = 1 if robustness.directions[metric] == "max" else -1
        change = [sign * (s.area[0] - s.clean[0]) for s in alone]
        worst, best = alone[int(np.argmin(change))], alone[int(np.argmax(change))]
        sentences.append(
            f"{metric} is {_format_pair(worst.clean)} on the unchanged {robustness.split} split. "
            f"Of the corruptions of one input it suffers most from {worst.corruption} of "
            f"{worst.modality} ({_format_pair(worst.worst)} {highest}, {_format_pair(worst.area)} "
            f"on average over the levels) and least from {best.corruption} of {best.modality} "
            f"({_format_pair(best.worst)} and {_format_pair(best.area)})."
        )
        for s in of_metric:
            if s.modality == ALL:
                which = "a missing rate" if s.corruption == MISSING else f"the {s.corruption}"
                value = f"{_format_pair(s.worst)} {highest}"
                sentences.append(f"Under {which} of all modalities at once it is {value}.")
        sentences += _compare_in_words(metric, of_metric)
    return " ".join(sentences)


def _compare_in_words(metric: str, summaries: Iterable[RobustnessSummary]) -> list[str]:
    """Counts the corruptions under which the model loses less, or more, than the baseline."""
    pairs = [s.effective for s in summaries if s.effective is not None]
    if not pairs:
        return []
    if any(np.isnan(half) for _, half in pairs):
        less, more = sum(m > 0 for m, _ in pairs), sum(m < 0 for m, _ in pairs)
        claim = "one seed gives no interval"
    else:
        less, more = sum(m - h > 0 for m, h in pairs), sum(m + h < 0 for m, h in pairs)
        claim = "95% intervals that exclude 0"
    return [
        f"Against the baseline, {metric} loses less under {less} and more under {more} of "
        f"{len(pairs)} corruptions ({claim})."
    ]


def _format_pair(pair: tuple[float, float]) -> str:
    return format_interval(*pair, count_decimals(*pair))


def _make_rows(robustness: Robustness, summaries: Iterable[RobustnessSummary]) -> list[list[str]]:
    highest = f"{robustness.levels[-1]:g}"
    rows = [["metric", "modality", "corruption", "clean", f"level {highest}", "area", "relative"]]
    has_baseline = False
    for s in sorted(summaries, key=lambda s: robustness.main_metrics.index(s.metric)):
        row = [s.metric, s.modality, s.corruption]
        row += [_format_pair(pair) for pair in (s.clean, s.worst, s.area, s.relative)]
        if s.effective is not None:
            row.append(_format_pair(s.effective))
            has_baseline = True
        rows.append(row)
    if has_baseline:
        rows[0].append("effective")
    return rows


def _explain_table(robustness: Robustness) -> str:
    seeds, draws = len(robustness.seeds), robustness.draws
    levels = ", ".join(format_fixed(level, 2) for level in robustness.levels)
    return (
        f"Means over {seeds} training seed{'s' * (seeds > 1)} and {draws} draw{'s' * (draws > 1)} "
        f"of every corruption at the levels {levels}; ± is half of the 95% interval over seeds. "
        "area: mean over the levels. relative: area / clean, or clean / area if lower is better. "
        "effective: what is lost less than by the baseline, on average over the levels. Units: "
        "docs/robustness.md."
    )


def _replace_nan(value: Any) -> Any:
    """Replaces NaN, which JSON has not, by None."""
    if isinstance(value, dict):
        return {key: _replace_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def plot_robustness(robustness: Robustness, baseline: Robustness | None = None) -> Any:
    """Plots every task's metric over the level: a column per task, a row per modality.

    A line is a corruption, with the 95% band over training seeds; the thin line of its color is the
    baseline.
    """
    from mmjax.report import figures

    modalities = list(dict.fromkeys(curve.modality for curve in robustness.curves))
    metrics = robustness.main_metrics
    others = {} if baseline is None else {(c.modality, c.corruption): c for c in baseline.curves}
    with figures.use_figure_style():
        figure, axes = figures.make_figure(
            1.6 * len(modalities) + 0.3, len(modalities), len(metrics), sharex=True, sharey="col"
        )
        figure.set_figwidth(2.2 * len(metrics) + 1.5)
        for row, modality in zip(axes, modalities, strict=True):
            curves = [curve for curve in robustness.curves if curve.modality == modality]
            for axis, metric in zip(row, metrics, strict=True):
                _draw_panel(axis, robustness.levels, curves, others, metric)
                axis.set_title(f"{metric}: {modality}")
            row[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        for axis in axes[-1]:
            axis.set_xlabel("level")
    return figure


def _draw_panel(
    axis: Any,
    levels: Sequence[float],
    curves: Sequence[RobustnessCurve],
    others: dict[tuple[str, str], RobustnessCurve],
    metric: str,
) -> None:
    import pandas as pd

    from mmjax.report import figures
    from mmjax.report.study_results import get_metric_bounds
    from mmjax.train.reporting.learning_curves import make_line_styles

    for curve, style in zip(curves, make_line_styles(), strict=False):
        frame = pd.DataFrame(curve.values[metric], index=list(levels))
        line_style = style | {"label": curve.corruption}
        figures.draw_band(axis, frame, line_style, get_metric_bounds(metric), 0.0)
        other = others.get((curve.modality, curve.corruption))
        if other is not None:
            mean = other.values[metric].mean(axis=1)
            axis.plot(levels, mean, color=style["color"], linewidth=0.5)
