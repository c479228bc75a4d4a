"""What a run tells: its parts before training, its table and learning curves after."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmjax import files
from mmjax.console import print_table, print_text
from mmjax.escapes import escape_control_characters, escape_markdown, format_markdown_table
from mmjax.experiment import Experiment
from mmjax.intervals import format_mean as cell
from mmjax.runs.run_files import read_result
from mmjax.types import Params

Series = list[tuple[int, float]]  # (step, value)


def count_parameters(params: Params) -> dict[str, int]:
    """Number of parameters of each part of the model, and in all."""
    parts = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in sorted(params.items())}
    return parts | {"total": sum(parts.values())}


def describe(
    arm: str, experiment: Experiment, seeds: Sequence[int], devices: Sequence[jax.Device]
) -> None:
    """Prints what is about to be trained."""
    data = experiment.data
    sizes = ", ".join(f"{len(source):,} {name}" for name, source in data.splits.items())
    print_text(
        f"\n{arm}: {data.name} ({sizes}); {', '.join(sorted(experiment.model.encoders))} -> "
        f"{', '.join(sorted(experiment.model.heads))}; seeds {' '.join(map(str, seeds))}; "
        f"{len(devices)} x {devices[0].device_kind}"
    )


def metric_table(tests: Mapping[str, Sequence[Mapping[str, float]]]) -> list[list[str]]:
    """Metrics of {arm: one dictionary a seed} as rows of text, a header first; without losses.

    With several seeds a cell is the mean and half the width of its 95% interval. It is empty where
    an arm does not have the metric.
    """
    every = dict.fromkeys(name for seeds in tests.values() for name in seeds[0])
    names = [name for name in every if name.split("/")[-1] != "loss"]
    rows = [
        [arm, *(cell([one[n] for one in seeds]) if n in seeds[0] else "" for n in names)]
        for arm, seeds in tests.items()
    ]
    return [["", *(name.replace("/", " ") for name in names)], *rows]


def table(results: Mapping[str, Any]) -> list[list[str]]:
    """Test metrics, best steps and costs as rows of text, a header first and then an arm a row."""
    tests = {arm: [s["test"] for s in r["seeds"].values()] for arm, r in results.items()}
    costs = [
        [best_steps(r), f"{r['parameters']['total']:,}", f"{r['cost']['seconds']:.1f}"]
        for r in results.values()
    ]
    both = zip(metric_table(tests), [["best step", "parameters", "seconds"], *costs], strict=True)
    return [metrics + cost for metrics, cost in both]


def best_steps(result: Mapping[str, Any]) -> str:
    """Formats the step of the selected parameters; over several seeds its range."""
    steps = sorted({seed["best_step"] for seed in result["seeds"].values()})
    return "–".join(f"{step:,}" for step in dict.fromkeys((steps[0], steps[-1])))


def show(rows: list[list[str]]) -> None:
    """Prints the table."""
    print_table(rows, "Test split")


def markdown(rows: list[list[str]]) -> str:
    """The table in Markdown."""
    return format_markdown_table([[escape_markdown(cell) for cell in row] for row in rows])


def curves(workdir: Path, arms: Sequence[str], seeds: Sequence[int]) -> None:
    """Draws `learning_curves.png`: every validation metric over the steps, a line per arm.

    Over several seeds the line is the mean and the band runs from the lowest to the highest. Losses
    have the training's too, as a thin line, and a circle per seed marks the step whose parameters
    were selected.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    logs = {a: [read_log(workdir / a / f"metrics-seed{s}.jsonl") for s in seeds] for a in arms}
    selected = {a: selected_steps(workdir / a, seeds) for a in arms}
    names = sorted({n for log in logs.values() for one in log for n in one if "validation/" in n})
    if not names:
        return
    width = min(4, len(names))
    height = -(-len(names) // width)
    # Names are not read as mathematics.
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # names in scripts that the font lacks
        figure, axes = plt.subplots(
            height,
            width,
            figsize=(3.2 * width, 2.4 * height + 0.4),
            squeeze=False,
            layout="constrained",
        )
        for axis, name in zip(axes.flat, names, strict=False):
            for (arm, log), style in zip(logs.items(), line_styles(), strict=False):
                draw(axis, [one[name] for one in log if name in one], arm, style)
                draw_training(axis, [training_curve(one, name) for one in log], style)
                draw_selected(axis, [one.get(name, []) for one in log], selected[arm], style)
            axis.set_title(escape_control_characters(name.removeprefix("validation/")), fontsize=9)
            axis.tick_params(labelsize=7)
        for axis in axes.flat[len(names) :]:
            axis.set_visible(False)
        add_legend(figure, list(arms))
        figure.supxlabel("step", fontsize=9)
        with files.replacing(workdir / "learning_curves.png") as draft:
            figure.savefig(draft, dpi=150, format="png")
    plt.close(figure)


def add_legend(figure: Any, arms: Sequence[str]) -> None:
    """Explains the arms' lines, and what thick, thin and circles are, above all panels."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], **style) for style in line_styles()[: len(arms)]]
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


def selected_steps(directory: Path, seeds: Sequence[int]) -> list[int | None]:
    """The step of each seed's selected parameters; None where there is no result yet."""
    path = directory / "result.json"
    found = read_result(path)["seeds"] if path.is_file() else {}
    return [found.get(str(seed), {}).get("best_step") for seed in seeds]


def training_curve(log: Mapping[str, Series], name: str) -> Series:
    """What training logged of a metric of validation: losses only, a task's or their mean."""
    _, _, metric = name.partition("/")
    task, _, kind = metric.rpartition("/")
    if kind != "loss":
        return []
    if task:
        return list(log.get(f"train/loss/{task}", []))
    tasks = [dict(series) for logged, series in log.items() if logged.startswith("train/loss/")]
    steps = sorted(set.intersection(*map(set, tasks))) if tasks else []
    return [(step, float(np.mean([losses[step] for losses in tasks]))) for step in steps]


def draw_training(axis: Any, runs: Sequence[Series], style: Mapping[str, Any]) -> None:
    """Draws the mean over the seeds of what training logged, where every seed has it."""
    if runs and all(runs):
        length = min(map(len, runs))
        values = np.array([[value for _, value in run[:length]] for run in runs])
        steps = [step for step, _ in runs[0][:length]]
        axis.plot(steps, values.mean(0), linewidth=0.6, alpha=0.8, **style)


def draw_selected(
    axis: Any, runs: Sequence[Series], steps: Sequence[int | None], style: Mapping[str, Any]
) -> None:
    """Marks each seed's selected step at that seed's value."""
    for run, step in zip(runs, steps, strict=True):
        for at, value in run:
            if at == step:
                axis.plot(at, value, "o", markersize=4, fillstyle="none", color=style["color"])


def line_styles() -> list[dict[str, Any]]:
    """Colours that differ for the colour-blind too, with dashes that differ in black and white."""
    colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9"]
    dashes = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
    return [{"color": c, "linestyle": d} for c, d in zip(colours, dashes, strict=True)] * 4


def draw(axis: Any, runs: list[list[tuple[int, float]]], label: str, style: dict[str, Any]) -> None:
    """One arm's curve: the mean over its seeds, as far as all of them go, and their range."""
    if not runs:
        return
    known = [dict(run) for run in runs]
    steps = [step for step, _ in runs[0] if all(step in run for run in known)]
    values = np.array([[run[step] for step in steps] for run in known])
    axis.plot(steps, values.mean(0), label=label, linewidth=1.2, **style)
    axis.fill_between(
        steps, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0
    )


def read_log(path: Path) -> dict[str, list[tuple[int, float]]]:
    """A JSON lines log as {metric: [(step, value), ...]}; damaged lines are named and left out."""
    log = files.read_log(path)
    for _, reason in log.damage:
        logging.getLogger("mmjax").warning("%s. The line is left out.", reason)
    series: dict[str, list[tuple[int, float]]] = {}
    for record in log.records:
        step = record.pop("step")
        for name, value in record.items():
            series.setdefault(name, []).append((step, value))
    return series
