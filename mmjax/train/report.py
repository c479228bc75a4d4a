"""What a run tells: its parts before training, its table and learning curves after."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmjax.experiment import Experiment
from mmjax.train.evaluate import mean_interval
from mmjax.train.progress import console
from mmjax.types import Params


def write_json(path: Path, value: Any) -> None:
    """Writes JSON in one move, so that a reader never meets half a file."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    partial.replace(path)


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
    print(
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
        [format_best_steps(r), f"{r['parameters']['total']:,}", f"{r['cost']['seconds']:.1f}"]
        for r in results.values()
    ]
    header = ["best step", "parameters", "seconds"]
    both = zip(metric_table(tests), [header, *costs], strict=True)
    return [metrics + cost for metrics, cost in both]


def format_best_steps(result: Mapping[str, Any]) -> str:
    """Formats the steps whose parameters were tested: one, or the first and last over the seeds."""
    steps = sorted({seed["best_step"] for seed in result["seeds"].values()})
    return str(steps[0]) if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"


def cell(values: Sequence[float]) -> str:
    """A metric over the seeds."""
    mean, half = mean_interval(values)
    digits = 3 if abs(mean) < 10 else 1
    return f"{mean:.{digits}f}" + ("" if np.isnan(half) else f" ± {half:.{digits}f}")


def show(rows: list[list[str]]) -> None:
    """Prints the table; intervals stand below their means, so that it fits most screens."""
    from rich.box import SIMPLE
    from rich.table import Table

    shown = Table(title="Test split", box=SIMPLE, padding=(0, 1, 0, 0))
    for i, name in enumerate(rows[0]):
        shown.add_column(name.replace(" ", "\n"), justify="right" if i else "left")
    for row in rows[1:]:
        shown.add_row(*(text.replace(" ± ", "\n±") for text in row))
    console().print(shown)


def markdown(rows: list[list[str]]) -> str:
    """The table in Markdown."""
    rule = [":--", *["--:"] * (len(rows[0]) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], rule, *rows[1:]))


def curves(workdir: Path, arms: Sequence[str], seeds: Sequence[int]) -> None:
    """Draws `learning_curves.png`: every validation metric over the steps, a line an arm.

    Over several seeds the line is the mean and the band runs from the lowest to the highest.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    logs = {a: [read_log(workdir / a / f"metrics-seed{s}.jsonl") for s in seeds] for a in arms}
    names = sorted({n for log in logs.values() for one in log for n in one if "validation/" in n})
    width = min(4, len(names))
    height = -(-len(names) // width)
    figure, axes = plt.subplots(
        height, width, figsize=(3.2 * width, 2.4 * height), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes.flat, names, strict=False):
        for (arm, log), style in zip(logs.items(), line_styles(), strict=False):
            draw(axis, [one[name] for one in log if name in one], arm, style)
        axis.set_title(name.removeprefix("validation/"), fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    axes.flat[0].legend(fontsize=7)
    figure.supxlabel("step (metrics on the validation split)", fontsize=9)
    figure.savefig(workdir / "learning_curves.png", dpi=150)
    plt.close(figure)


def line_styles() -> list[dict[str, Any]]:
    """Colours that differ for the colour-blind too, with dashes that differ in black and white."""
    colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9"]
    dashes = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
    return [{"color": c, "linestyle": d} for c, d in zip(colours, dashes, strict=True)] * 4


def draw(axis: Any, runs: list[list[tuple[int, float]]], label: str, style: dict[str, Any]) -> None:
    """One arm's curve: the mean over its seeds, as far as all of them go, and their range."""
    if not runs:
        return
    length = min(map(len, runs))
    steps = [step for step, _ in runs[0][:length]]
    values = np.array([[value for _, value in run[:length]] for run in runs])
    axis.plot(steps, values.mean(0), label=label, linewidth=1.2, **style)
    axis.fill_between(
        steps, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0
    )


def read_log(path: Path) -> dict[str, list[tuple[int, float]]]:
    """A JSON lines log as {metric: [(step, value), ...]}."""
    series: dict[str, list[tuple[int, float]]] = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        step = record.pop("step")
        for name, value in record.items():
            series.setdefault(name, []).append((step, value))
    return series
