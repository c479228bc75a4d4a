"""Learning curves of a run: every metric over the steps, as `learning_curves.png`."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import files
from mmjax.files.run_files import read_result_file
from mmjax.printing.escapes import escape_control_characters

_Series = list[tuple[int, float]]  # (step, value)


def draw_learning_curves(workdir: Path, arms: Sequence[str], seeds: Sequence[int]) -> None:
    """Draws `learning_curves.png`: every validation metric over the steps, a line per arm.

    With several seeds the line is the mean, and the band is from the lowest to the highest. A thin
    line is the training loss, and a circle per seed marks the step of the selected parameters.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    logs, selected = {}, {}
    names: set[str] = set()
    for arm in arms:
        logs[arm] = [_read_series(workdir / arm / f"metrics-seed{seed}.jsonl") for seed in seeds]
        selected[arm] = _read_selected_steps(workdir / arm, seeds)
        for series in logs[arm]:
            names.update(name for name in series if "validation/" in name)
    if not names:
        return
    width = min(4, len(names))
    height = -(-len(names) // width)
    # A name with two $ is not a formula.
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # names in scripts that the font lacks
        figure, axes = plt.subplots(
            height,
            width,
            figsize=(3.2 * width, 2.4 * height + 0.4),
            squeeze=False,
            layout="constrained",
        )
        for axis, name in zip(axes.flat, sorted(names), strict=False):
            _draw_metric(axis, name, logs, selected)
        for axis in axes.flat[len(names) :]:
            axis.set_visible(False)
        _add_legend(figure, list(arms))
        figure.supxlabel("step", fontsize=9)
        with files.replace_atomically(workdir / "learning_curves.png") as draft:
            figure.savefig(draft, dpi=150, format="png")
    plt.close(figure)


def _draw_metric(
    axis: Any,
    name: str,
    logs: Mapping[str, Sequence[Mapping[str, _Series]]],
    selected: Mapping[str, Sequence[int | None]],
) -> None:
    """Draws one metric of all arms, with the training losses and the selected steps."""
    for (arm, log), style in zip(logs.items(), make_line_styles(), strict=False):
        values = [series.get(name, []) for series in log]
        _draw_validation_curve(axis, [series for series in values if series], arm, style)
        losses = [_select_training_losses(series, name) for series in log]
        _draw_training_losses(axis, losses, style)
        _draw_selected_steps(axis, values, selected[arm], style)
    axis.set_title(escape_control_characters(name.removeprefix("validation/")), fontsize=9)
    axis.tick_params(labelsize=7)


def _add_legend(figure: Any, arms: Sequence[str]) -> None:
    """Adds a legend above all panels: the arms' colors, and the meaning of lines and circles."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], **style) for style in make_line_styles()[: len(arms)]]
    kinds: dict[str, dict[str, Any]] = {
        "validation": {"linewidth": 1.2},
        "training": {"linewidth": 0.6},
        "selected step": {"linestyle": "", "marker": "o", "markersize": 4, "fillstyle": "none"},
    }
    lines += [Line2D([], [], color="0.4", **kind) for kind in kinds.values()]
    # A legend would leave out labels that start with an underscore.
    labels = [escape_control_characters(text) for text in (*arms, *kinds)]
    labels = [" " + text if text.startswith("_") else text for text in labels]
    figure.legend(lines, labels, loc="outside upper center", ncols=min(7, len(lines)), fontsize=7)


def _read_selected_steps(directory: Path, seeds: Sequence[int]) -> list[int | None]:
    """Reads the step of each seed's selected parameters; None before the result is written."""
    path = directory / "result.json"
    results = read_result_file(path)["seeds"] if path.is_file() else {}
    return [results.get(str(seed), {}).get("best_step") for seed in seeds]


def _select_training_losses(log: Mapping[str, _Series], name: str) -> _Series:
    """Returns the training loss for a validation loss: a task's or the mean; [] for a metric."""
    _, _, metric = name.partition("/")
    task, _, kind = metric.rpartition("/")
    if kind != "loss":
        return []
    if task:
        return list(log.get(f"train/loss/{task}", []))
    tasks = [dict(series) for logged, series in log.items() if logged.startswith("train/loss/")]
    steps = sorted(set.intersection(*map(set, tasks))) if tasks else []
    means = []
    for step in steps:
        means.append((step, float(np.mean([losses[step] for losses in tasks]))))
    return means


def _draw_training_losses(axis: Any, runs: Sequence[_Series], style: Mapping[str, Any]) -> None:
    """Draws the mean training loss over the seeds, if every seed has logged it."""
    if runs and all(runs):
        length = min(map(len, runs))
        points = np.array([run[:length] for run in runs])  # [seed, point, (step, loss)]
        axis.plot(points[0, :, 0], points[:, :, 1].mean(0), linewidth=0.6, alpha=0.8, **style)


def _draw_selected_steps(
    axis: Any, runs: Sequence[_Series], steps: Sequence[int | None], style: Mapping[str, Any]
) -> None:
    """Marks each seed's selected step at that seed's value."""
    for run, step in zip(runs, steps, strict=True):
        for at, value in run:
            if at == step:
                axis.plot(at, value, "o", markersize=4, fillstyle="none", color=style["color"])


def make_line_styles() -> list[dict[str, Any]]:
    """Returns colors that the color-blind can tell apart, and dashes for black and white."""
    colors = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9"]
    dashes = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
    return [{"color": c, "linestyle": d} for c, d in zip(colors, dashes, strict=True)] * 4


def _draw_validation_curve(
    axis: Any, runs: list[list[tuple[int, float]]], label: str, style: dict[str, Any]
) -> None:
    """Draws one arm's curve: the mean over its seeds, at steps that all of them have, and range."""
    if not runs:
        return
    known = [dict(run) for run in runs]
    steps = [step for step, _ in runs[0] if all(step in run for run in known)]
    values = np.array([list(map(run.__getitem__, steps)) for run in known])
    axis.plot(steps, values.mean(0), label=label, linewidth=1.2, **style)
    axis.fill_between(
        steps, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0
    )


def _read_series(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Reads a JSON lines log as {metric: [(step, value), ...]}; warns of damaged lines."""
    log = files.read_log(path)
    for _, reason in log.damage:
        logging.getLogger("mmjax").warning("%s. The line is left out.", reason)
    series: dict[str, list[tuple[int, float]]] = {}
    for record in log.records:
        step = record.pop("step")
        for name, value in record.items():
            series.setdefault(name, []).append((step, value))
    return series
