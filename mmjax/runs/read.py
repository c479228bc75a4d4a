"""Reads runs from their directories, and tabulates their metrics and differences."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax import files
from mmjax.files.run_files import check_arm_names, read_config_file, read_result_file
from mmjax.intervals import format_mean_interval
from mmjax.report import number_format, statistics
from mmjax.runs import stored_settings

_Rows = list[list[str]]


class RunRecord(NamedTuple):
    """One arm of a run, read from its directory.

    Attributes:
      name: the directory's name, or a unique name.
      state: "finished", "unfinished", "failed" or "not begun", with the last step or the error.
      settings: {path: value as text} that its configuration sets.
      tests: {seed: {metric: value}} on the test split.
      best_steps: {seed: step of the selected parameters}.
      cost: {name: value}, number of parameters included.
      home: its directory.
    """

    name: str
    state: str
    settings: Mapping[str, str]
    tests: Mapping[int, Mapping[str, float]]
    best_steps: Mapping[int, int]
    cost: Mapping[str, float]
    home: Path


def read_runs(directory: Path) -> list[RunRecord]:
    """Reads the arms of a run's directory, or the single arm that the directory holds.

    Raises:
      DamagedFileError: a file is damaged.
      ValueError: the directory does not hold a run, or holds a whole study.
    """
    if (directory / "study.json").is_file():
        raise ValueError(
            f"{directory} is a study; report it with mmjax report {directory}, or name one of its "
            f"arms in {directory / 'arms'}."
        )
    if (directory / "run.json").is_file():
        facts = files.read_json(directory / "run.json")
        with files.name_damaged_file(directory / "run.json"):
            check_arm_names(facts["arms"])
            homes = [directory / arm for arm in facts["arms"]]
        return [read_run(home) for home in homes]
    if (directory / "config.json").is_file():
        return [read_run(directory)]
    raise ValueError(f"{directory} does not hold a run: it has neither run.json nor config.json.")


def read_run(directory: Path) -> RunRecord:
    """Reads one arm from its directory."""
    path = directory / "result.json"
    result = read_result_file(path) if path.is_file() else {}
    seeds = {int(seed): values for seed, values in result.get("seeds", {}).items()}
    config = read_config_file(directory / "config.json")
    with files.name_damaged_file(directory / "config.json"):
        settings = stored_settings.parse_settings(config)
    return RunRecord(
        name=directory.absolute().name,
        state=describe_state(directory),
        settings=settings,
        tests={seed: values["test"] for seed, values in seeds.items()},
        best_steps={seed: values["best_step"] for seed, values in seeds.items()},
        cost=_parse_cost(result),
        home=directory,
    )


def describe_state(directory: Path) -> str:
    """Describes the state of an arm: finished, failed, unfinished or not begun."""
    if (directory / "result.json").is_file():
        return "finished"
    if (directory / "error.txt").is_file():
        return f"failed: {extract_error_line(files.read_text(directory / 'error.txt'))}"
    paths = list(directory.glob("metrics-seed*.jsonl"))
    steps = []
    for path in paths:
        log = files.read_log(path)
        for _, reason in log.damage:
            logging.getLogger("mmjax").warning("%s.", reason)
        if log.records:
            steps.append(log.records[-1]["step"])
    if not steps:
        return "not begun" if not paths else "unfinished, before its first log"
    seeds = sorted(int(re.findall(r"\d+", path.stem)[-1]) for path in paths)
    return f"unfinished at step {min(steps)}, seeds {' '.join(map(str, seeds))}"


def make_metrics_table(run: RunRecord) -> _Rows:
    """Tabulates test metrics: one row per metric, one column per seed, and the mean.

    Returns rows of text, the header first.
    """
    names = dict.fromkeys(name for test in run.tests.values() for name in test)
    has_mean = len(run.tests) > 1
    header = ["", *(f"seed {seed}" for seed in run.tests), *["mean"] * has_mean]
    rows = [header, ["best step", *map(str, run.best_steps.values()), *[""] * has_mean]]
    for name in names:
        values = [test.get(name, float("nan")) for test in run.tests.values()]
        cells = [format_mean_interval([value]) for value in values]
        rows.append([name, *cells, *[format_mean_interval(values)] * has_mean])
    return rows


def make_comparison_table(runs: Sequence[RunRecord]) -> _Rows:
    """Tabulates means and intervals: one row per metric, one column per run, then the costs.

    Returns rows of text, the header first.
    """
    rows = [["", *(run.name for run in runs)]]
    rows.append(["seeds", *(" ".join(map(str, run.tests)) for run in runs)])
    for name in list_metrics(runs):
        values = [[t[name] for t in run.tests.values() if name in t] for run in runs]
        rows.append([name, *(format_mean_interval(v) if v else "" for v in values)])
    all_costs = [run.cost for run in runs]
    for name in dict.fromkeys(name for cost in all_costs for name in cost):
        rows.append(
            [name, *(number_format.format_number(c[name]) if name in c else "" for c in all_costs)]
        )
    return rows


def make_difference_table(runs: Sequence[RunRecord]) -> _Rows:
    """Tabulates differences to the first run on common seeds, with Holm's p over the runs.

    Returns rows of text, the header first; [] if no run has two seeds in common with the first.
    """
    first, others = runs[0], runs[1:]
    rows = [["", *(run.name for run in others)]]
    for name in list_metrics(runs):
        seeds = [seed for seed, test in first.tests.items() if name in test]
        values = np.array([[_get_value(run, seed, name) for seed in seeds] for run in runs])
        comparison = statistics.compare_with_baseline(values[1:], values[0])
        if not np.isnan(comparison.half).all():
            rows.append([name, *(_format_difference(comparison, i) for i in range(len(others)))])
    return rows if len(rows) > 1 else []


def read_distinct_runs(directories: Sequence[Path]) -> list[RunRecord]:
    """Reads the arms of all directories and gives them unique names.

    Raises:
      ValueError: a directory does not hold a run, or there are fewer than two arms.
    """
    runs, full_names = [], []
    for directory in directories:
        for run in read_runs(directory):
            is_directory = directory.absolute().name == run.name
            runs.append(run)
            full_names.append(str(directory) if is_directory else f"{directory}/{run.name}")
    if len(runs) < 2:
        raise ValueError("There is only one run; name another one to compare it with.")
    if len({run.name for run in runs}) == len(runs):
        return runs
    return [run._replace(name=name) for run, name in zip(runs, full_names, strict=True)]


def extract_error_line(error: str) -> str:
    """Returns the first line of an error; of a traceback, the line that names the last error.

    Example:
      >>> extract_error_line("ValueError: no data")
      'ValueError: no data'
    """
    _, traceback, last = error.rpartition("Traceback (most recent call last):")
    lines = [line for line in last.splitlines() if line.strip()]
    named = [line for line in lines if not line.startswith(" ")] if traceback else lines
    return (named or lines or ["(no message)"])[0].strip()


def _parse_cost(result: Mapping[str, Any]) -> dict[str, float]:
    parameters = result.get("parameters", {})
    count = {"parameters": parameters["total"]} if parameters else {}
    return {name: float(x) for name, x in (count | result.get("cost", {})).items()}


def list_metrics(runs: Sequence[RunRecord]) -> list[str]:
    """Returns the metrics of any run, without the losses."""
    names = dict.fromkeys(name for run in runs for test in run.tests.values() for name in test)
    return [name for name in names if name.rpartition("/")[2] != "loss"]


def _get_value(run: RunRecord, seed: int, name: str) -> float:
    return run.tests.get(seed, {}).get(name, float("nan"))


def _format_difference(comparison: statistics.Comparison, i: int) -> str:
    if np.isnan(comparison.half[i]):
        return ""
    mean, half = float(comparison.difference[i]), float(comparison.half[i])
    text = number_format.format_interval(mean, half, number_format.count_decimals(mean, half))
    return f"{text} (p {number_format.format_p_value(float(comparison.holm[i]))})"
