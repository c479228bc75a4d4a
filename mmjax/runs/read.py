"""What a run's directory tells: what each arm was, what it gave, and how runs differ."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax import files
from mmjax.report import number_format
from mmjax.report import statistics
from mmjax.runs import stored_settings
from mmjax.intervals import format_mean as cell
from mmjax.runs.run_files import check_arms, read_config, read_result

Rows = list[list[str]]


class Run(NamedTuple):
    """One configuration with its seeds, as it lies in a directory.

    Attributes:
      name: the directory's name, or what tells it from others.
      state: "finished", "unfinished", "failed" or "not begun", and how far it came or why.
      settings: {path: value as text} that its configuration sets.
      tests: {seed: {metric: value}} on the test split.
      best_steps: {seed: step of the best parameters}.
      cost: {name: value}; parameters are one of them.
    """

    name: str
    state: str
    settings: Mapping[str, str]
    tests: Mapping[int, Mapping[str, float]]
    best_steps: Mapping[int, int]
    cost: Mapping[str, float]


def find(directory: Path) -> list[Run]:
    """The arms of a run's directory, or the one that the directory itself is.

    Raises:
      DamagedFileError: a file of it is damaged.
      ValueError: it is no run, or a whole study.
    """
    if (directory / "study.json").is_file():
        raise ValueError(
            f"{directory} is a study: mmjax report {directory} reports it, and each of its arms is "
            f"a run in {directory / 'arms'}."
        )
    if (directory / "run.json").is_file():
        facts = files.read_json(directory / "run.json")
        with files.naming_damage(directory / "run.json"):
            check_arms(facts["arms"])
            homes = [directory / arm for arm in facts["arms"]]
        return [read(home) for home in homes]
    if (directory / "config.json").is_file():
        return [read(directory)]
    raise ValueError(f"{directory} holds no run: it has neither run.json nor config.json.")


def read(directory: Path) -> Run:
    """One arm's directory."""
    path = directory / "result.json"
    result = read_result(path) if path.is_file() else {}
    seeds = {int(seed): one for seed, one in result.get("seeds", {}).items()}
    config = read_config(directory / "config.json")
    with files.naming_damage(directory / "config.json"):
        settings = stored_settings.settings(config)
    return Run(
        name=directory.absolute().name,
        state=state(directory),
        settings=settings,
        tests={seed: one["test"] for seed, one in seeds.items()},
        best_steps={seed: one["best_step"] for seed, one in seeds.items()},
        cost=_cost(result),
    )


def state(directory: Path) -> str:
    """How far an arm came."""
    if (directory / "result.json").is_file():
        return "finished"
    if (directory / "error.txt").is_file():
        return f"failed: {first_line(files.read_text(directory / 'error.txt'))}"
    logs = list(directory.glob("metrics-seed*.jsonl"))
    found = [files.read_log(log) for log in logs]
    for reason in [reason for log in found for _, reason in log.damage]:
        logging.getLogger("mmjax").warning("%s.", reason)
    steps = [log.records[-1]["step"] for log in found if log.records]
    if not steps:
        return "not begun" if not logs else "unfinished, before its first log"
    seeds = sorted(int(re.findall(r"\d+", log.stem)[-1]) for log in logs)
    return f"unfinished at step {min(steps)}, seeds {' '.join(map(str, seeds))}"


def metrics(run: Run) -> Rows:
    """Test metrics as rows of text, a header first: a metric a row, a seed a column, the mean."""
    names = dict.fromkeys(name for test in run.tests.values() for name in test)
    head = ["", *(f"seed {seed}" for seed in run.tests), *["mean"] * (len(run.tests) > 1)]
    rows = [["best step", *map(str, run.best_steps.values()), *[""] * (len(run.tests) > 1)]]
    for name in names:
        values = [test.get(name, float("nan")) for test in run.tests.values()]
        shown = [cell([value]) for value in values]
        rows.append([name, *shown, *[cell(values)] * (len(values) > 1)])
    return [head, *rows]


def side_by_side(runs: Sequence[Run]) -> Rows:
    """Means and intervals of the metrics: a metric a row, a run a column; the costs behind."""
    rows = [["", *(run.name for run in runs)]]
    rows.append(["seeds", *(" ".join(map(str, run.tests)) for run in runs)])
    for name in _names(runs):
        values = [[t[name] for t in run.tests.values() if name in t] for run in runs]
        rows.append([name, *(cell(v) if v else "" for v in values)])
    all_costs = [run.cost for run in runs]
    for name in dict.fromkeys(name for cost in all_costs for name in cost):
        rows.append([name, *(number_format.short(c[name]) if name in c else "" for c in all_costs)])
    return rows


def tests(runs: Sequence[Run]) -> Rows:
    """Differences to the first run on common seeds, with p after Holm's correction over the runs.

    It is empty where no run has two seeds in common with the first.
    """
    first, others = runs[0], runs[1:]
    rows = [["", *(run.name for run in others)]]
    for name in _names(runs):
        seeds = [seed for seed, test in first.tests.items() if name in test]
        values = np.array([[_value(run, seed, name) for seed in seeds] for run in runs])
        found = statistics.compare(values[1:], values[0])
        if not np.isnan(found.half).all():
            rows.append([name, *(_difference(found, i) for i in range(len(others)))])
    return rows if len(rows) > 1 else []


def distinct(directories: Sequence[Path]) -> list[Run]:
    """The arms of all the directories, by names that tell them apart.

    Raises:
      ValueError: a directory is no run, or there are fewer than two arms.
    """
    found = [(directory, run) for directory in directories for run in find(directory)]
    if len(found) < 2:
        raise ValueError("There is one run only; name another one to compare it with.")
    names = [run.name for _, run in found]
    if len(set(names)) < len(names):
        names = [
            str(directory) if directory.absolute().name == run.name else f"{directory}/{run.name}"
            for directory, run in found
        ]
    return [run._replace(name=name) for (_, run), name in zip(found, names, strict=True)]


def first_line(error: str) -> str:
    """The first line of an error; of tracebacks the one that names the last error."""
    _, traceback, last = error.rpartition("Traceback (most recent call last):")
    lines = [line for line in last.splitlines() if line.strip()]
    named = [line for line in lines if not line.startswith(" ")] if traceback else lines
    return (named or lines or ["(no message)"])[0].strip()


def _cost(result: Mapping[str, Any]) -> dict[str, float]:
    parameters = result.get("parameters", {})
    found = {"parameters": parameters["total"]} if parameters else {}
    return {name: float(x) for name, x in (found | result.get("cost", {})).items()}


def _names(runs: Sequence[Run]) -> list[str]:
    """The metrics of any run, but the losses."""
    every = dict.fromkeys(name for run in runs for test in run.tests.values() for name in test)
    return [name for name in every if name.rpartition("/")[2] != "loss"]


def _value(run: Run, seed: int, name: str) -> float:
    return run.tests.get(seed, {}).get(name, float("nan"))


def _difference(found: statistics.Comparison, i: int) -> str:
    if np.isnan(found.half[i]):
        return ""
    mean, half = float(found.difference[i]), float(found.half[i])
    shown = number_format.interval(mean, half, number_format.decimals(mean, half))
    return f"{shown} (p {number_format.probability(float(found.holm[i]))})"
