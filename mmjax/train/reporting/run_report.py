"""Reports of a run: its arms before training, its table and learning curves afterwards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from mmjax import files
from mmjax.experiment import Experiment
from mmjax.intervals import format_mean_interval
from mmjax.printing.console import print_table, print_text
from mmjax.printing.escapes import format_markdown_table
from mmjax.train.reporting.learning_curves import draw_learning_curves
from mmjax.types import Params


def count_parameters(params: Params) -> dict[str, int]:
    """Returns the number of parameters of each part of the model, and the "total"."""
    parts = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in sorted(params.items())}
    return parts | {"total": sum(parts.values())}


def print_arm(
    arm: str, experiment: Experiment, seeds: Sequence[int], devices: Sequence[jax.Device]
) -> None:
    """Prints the data, modalities, tasks, seeds and devices of an arm before its training."""
    data = experiment.data
    sizes = ", ".join(f"{len(source):,} {name}" for name, source in data.splits.items())
    print_text(
        f"\n{arm}: {data.name} ({sizes}); {', '.join(sorted(experiment.model.encoders))} -> "
        f"{', '.join(sorted(experiment.model.heads))}; seeds {' '.join(map(str, seeds))}; "
        f"{len(devices)} x {devices[0].device_kind}"
    )


def write_run_report(workdir: Path, results: Mapping[str, Any], seeds: Sequence[int]) -> None:
    """Writes `summary.json`, the learning curves and `table.md` of a run, and prints its table."""
    files.write_json(workdir / "summary.json", results, sealed=False)
    draw_learning_curves(workdir, list(results), seeds)
    rows = make_result_rows(results)
    files.write_text(workdir / "table.md", format_result_table(rows))
    print_result_table(rows)
    print_text(f"Results: {workdir}")


def make_result_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Makes rows of test metrics, best steps and costs: a header, then one row per arm.

    The peak is that of the memory in use: on a GPU or TPU of the fullest device, on a CPU of the
    whole process so far.
    """
    tests, costs = {}, [["best step", "parameters", "seconds", "peak MB"]]
    for arm, result in results.items():
        tests[arm] = [seed["test"] for seed in result["seeds"].values()]
        parameters, cost = result["parameters"]["total"], result["cost"]
        # Results of earlier versions have no measured peak.
        peak = f"{cost['measured_peak_bytes'] / 1e6:,.0f}" if "measured_peak_bytes" in cost else ""
        row = [_format_best_steps(result), f"{parameters:,}", f"{cost['seconds']:.1f}", peak]
        costs.append(row)
    return [metrics + cost for metrics, cost in zip(make_metric_rows(tests), costs, strict=True)]


def make_metric_rows(tests: Mapping[str, Sequence[Mapping[str, float]]]) -> list[list[str]]:
    """Makes rows of test metrics, without losses: a header, then one row per arm.

    With several seeds a cell is the mean and half the width of its 95% interval. It is empty if an
    arm does not have the metric.

    Args:
      tests: {arm: one dictionary of metrics per seed}.
    """
    names: dict[str, str] = {}  # in the order of the first arm that has the metric
    for seeds in tests.values():
        for name in seeds[0]:
            if name.split("/")[-1] != "loss":
                names.setdefault(name, name.replace("/", " "))
    rows = [["", *names.values()]]
    for arm, seeds in tests.items():
        row = [arm]
        for name in names:
            has_metric = name in seeds[0]
            row.append(format_mean_interval([s[name] for s in seeds]) if has_metric else "")
        rows.append(row)
    return rows


def _format_best_steps(result: Mapping[str, Any]) -> str:
    """Formats the step of the selected parameters; over several seeds the range."""
    steps = sorted({seed["best_step"] for seed in result["seeds"].values()})
    return "–".join(f"{step:,}" for step in dict.fromkeys((steps[0], steps[-1])))


def print_result_table(rows: list[list[str]]) -> None:
    """Prints the table of test results."""
    print_table(rows, "Test split")


def format_result_table(rows: list[list[str]]) -> str:
    """Formats the table in Markdown."""
    return format_markdown_table(rows, escape=True)
