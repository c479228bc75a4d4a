"""Writes the calibration by subset: JSON, a table, two figures, and a paragraph in words."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import files
from mmjax.intervals import compute_mean_interval
from mmjax.modalities.robustness.calibration_by_subset import SCALINGS, SubsetCalibration
from mmjax.printing.escapes import escape_control_characters, format_markdown_table
from mmjax.report.number_format import count_decimals, format_interval

_NOTE = (
    "Means over the training seeds; ± is half of the 95% interval. The temperature is fitted to "
    "the validation split. ece: expected calibration error before scaling, scaled by the "
    "temperature of all modalities, and by the subset's own one. classwise ece: before scaling, of "
    "the probability of each class; of two classes, against the frequency of the second. nll: "
    "negative log-likelihood in nats. aurc: area under the risk-coverage curve; excess: above the "
    "best order of the errors."
)


def write_calibration(directory: Path, calibrations: Sequence[SubsetCalibration]) -> str:
    """Writes `calibration.json`, `calibration.md`, `reliability.png` and `risk_coverage.png`.

    Returns:
      The paragraph, which also opens the Markdown file.
    """
    from mmjax.train.reporting.class_figures import save_png

    directory.mkdir(parents=True, exist_ok=True)
    content = {"scalings": SCALINGS, "subsets": [_convert_to_json(c) for c in calibrations]}
    files.write_json(directory / "calibration.json", content)
    words = describe_calibration(calibrations)
    whole = [c for c in calibrations if not c.label]
    table = format_markdown_table(_make_rows(whole), 2, escape=True)
    text = f"# Calibration\n\n{words}\n\n{table}\n{_NOTE}\n"
    labels = [c for c in calibrations if c.label]
    if labels:
        text += f"\n## Labels\n\n{format_markdown_table(_make_rows(labels), 2, escape=True)}"
    files.write_text(directory / "calibration.md", escape_control_characters(text, keep="\n"))
    save_png(plot_reliability(whole), directory / "reliability.png")
    save_png(plot_risk_coverage(whole), directory / "risk_coverage.png")
    return words


def describe_calibration(calibrations: Sequence[SubsetCalibration]) -> str:
    """Says in words how sure each task is with all modalities, and from which subset too sure."""
    sentences = []
    for task, of_task in _group_by_task(calibrations).items():
        whole, *parts = (c for c in of_task if not c.label)
        sentences.append(
            f"{task}: with all modalities the model is right on {_show(whole, 'accuracy')} of the "
            f"labels and sure by {_show(whole, 'confidence')}; its calibration error is "
            f"{_show(whole, 'ece')}, and {_show(whole, 'ece', 2)} after scaling by the temperature "
            f"{_format_mean(whole.temperature)}."
        )
        if parts:
            worst = max(parts, key=lambda c: c.values["ece"][0].mean())
            gap = (worst.values["confidence"][0] - worst.values["accuracy"][0]).mean()
            sentences.append(
                f"It knows least of what it does not know from {worst.subset} alone: it is right "
                f"on {_show(worst, 'accuracy')} and sure by {_show(worst, 'confidence')}, "
                f"{'over' if gap > 0 else 'under'}confident, with a calibration error of "
                f"{_show(worst, 'ece')}. The temperature of all modalities leaves "
                f"{_show(worst, 'ece', 1)}; a temperature of its own, "
                f"{_format_mean(worst.temperature)}, leaves {_show(worst, 'ece', 2)}."
            )
        labels = [c for c in of_task if c.label]
        if labels:
            worst = max(labels, key=lambda c: c.values["ece"][0].mean())
            sentences.append(
                f"Of its {len(labels)} labels, {worst.label} is calibrated worst, with an error of "
                f"{_show(worst, 'ece')}."
            )
    return " ".join(sentences)


def _group_by_task(
    calibrations: Iterable[SubsetCalibration],
) -> dict[str, list[SubsetCalibration]]:
    groups: dict[str, list[SubsetCalibration]] = {}
    for calibration in calibrations:
        groups.setdefault(calibration.task, []).append(calibration)
    return groups


def _show(calibration: SubsetCalibration, measure: str, scaling: int = 0) -> str:
    return _format_mean(calibration.values[measure][scaling])


def _format_mean(values: np.ndarray) -> str:
    pair = compute_mean_interval(values)
    return format_interval(*pair, count_decimals(*pair))


def _make_rows(calibrations: Iterable[SubsetCalibration]) -> list[list[str]]:
    header = ["task", "modalities", "examples", "accuracy", "confidence"]
    header += [f"ece, {scaling}" for scaling in SCALINGS]
    header += [
        "classwise ece",
        "temperature",
        "nll, before",
        "nll, own temperature",
        "aurc",
        "excess aurc",
    ]
    rows = [header]
    for c in calibrations:
        task = f"{c.task}: {c.label}" if c.label else c.task
        row = [task, c.subset, f"{c.examples:,}", _show(c, "accuracy"), _show(c, "confidence")]
        row += [_show(c, "ece", i) for i in range(len(SCALINGS))]
        row += [_show(c, "classwise ece")]
        row += [_format_mean(c.temperature), _show(c, "nll"), _show(c, "nll", 2)]
        row += [_show(c, "aurc"), _show(c, "excess aurc")]
        rows.append(row)
    return rows


def _convert_to_json(calibration: SubsetCalibration) -> dict[str, Any]:
    def convert(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.tolist()
        if isinstance(value, dict):
            return {key: convert(item) for key, item in value.items()}
        return [convert(item) for item in value] if isinstance(value, tuple) else value

    return {name: convert(value) for name, value in calibration._asdict().items()}


def plot_reliability(calibrations: Sequence[SubsetCalibration]) -> Any:
    """Plots accuracy over confidence of every subset: before scaling, and after (own temperature).

    Points below the diagonal are overconfident.
    """

    def draw(axes: Sequence[Any], calibration: SubsetCalibration, style: dict[str, Any]) -> None:
        for axis, curve in zip(axes, calibration.reliability, strict=True):
            axis.plot(curve["confidence"], curve["accuracy"], **style)

    figure, axes = _plot_by_task(calibrations, ("before", "after"), draw)
    for axis in axes.flat:
        axis.plot([0, 1], [0, 1], color="0.75", linewidth=0.6, zorder=0)
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
        axis.set_xlabel("confidence")
        axis.set_ylabel("accuracy")
    return figure


def plot_risk_coverage(calibrations: Sequence[SubsetCalibration]) -> Any:
    """Plots the error rate among the most confident examples over their share, of every subset."""

    def draw(axes: Sequence[Any], calibration: SubsetCalibration, style: dict[str, Any]) -> None:
        curve = calibration.risk_coverage
        axes[0].plot(curve["coverage"], curve["risk"], **style)

    figure, axes = _plot_by_task(calibrations, ("",), draw)
    for axis in axes.flat:
        axis.set_ylim(bottom=0)
        axis.set_xlabel("share of examples that are answered")
        axis.set_ylabel("error rate")
    return figure


_Draw = Callable[[Sequence[Any], SubsetCalibration, dict[str, Any]], None]


def _plot_by_task(
    calibrations: Sequence[SubsetCalibration], columns: Sequence[str], draw: _Draw
) -> tuple[Any, Any]:
    """Makes a row of panels per task, a line per subset, and one legend."""
    from mmjax.report import figures
    from mmjax.train.reporting.learning_curves import make_line_styles

    groups = _group_by_task(calibrations)
    with figures.use_figure_style():
        figure, axes = figures.make_figure(2.2 * len(groups), len(groups), len(columns))
        figure.set_figwidth(2.4 * len(columns) + 1.6)
        for row, (task, of_task) in zip(axes, groups.items(), strict=True):
            # Of more than 28 subsets the smallest have no line.
            for calibration, style in zip(of_task, make_line_styles(), strict=False):
                draw(list(row), calibration, style | {"label": calibration.subset})
            for axis, column in zip(row, columns, strict=True):
                axis.set_title(f"{task}, {column}" if column else task)
            row[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure, axes
