"""Writes a made-up study of many arms by mmjax's own writers, and times its report.

    python experiments/faults/many_results.py --arms 1000

Nothing is trained: every arm has the logs and the result that a training would leave, of 5 seeds,
two tasks and 20 validations. Measured for 1,000 arms (540,000 numbers): the results of all arms
are collected in 2.6 s of a processor, and after one more arm in 0.6 s; the report takes 4.0 s and
627 MB.
"""

import argparse
import itertools
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from mmjax import files
from mmjax.report.write_report import write_report
from mmjax.study import write_results
from mmjax.train.reporting.metric_writers import open_jsonl_writer

SEEDS = tuple(range(5))
STEPS = range(100, 2001, 100)
TASKS = ("digit", "rate")
AXES = ("model.fusion", "balancer", "optimizer.learning_rate")


def make_arms(count: int) -> dict[str, dict[str, str]]:
    """Returns {arm: labels} of `count` arms over three axes of about equal length."""
    size = int(np.ceil(count ** (1 / 3)))
    labels = [[f"{axis.rpartition('.')[2]}{i}()" for i in range(size)] for axis in AXES]
    arms = {}
    for values in itertools.islice(itertools.product(*labels), count):
        name = ",".join(value.removesuffix("()") for value in values)
        arms[name] = dict(zip(AXES, values, strict=True))
    return arms


def write_study(directory: Path, arms: dict[str, dict[str, str]]) -> None:
    """Writes the plan, the logs and the results of a study."""
    for number, name in enumerate(arms):
        write_arm(directory / "arms" / name, np.random.default_rng(number))
    plan = {
        "name": "many_results",
        "metric": "digit/accuracy",
        "direction": "max",
        "directions": {"digit/accuracy": "max", "digit/loss": "min", "rate/mae": "min"},
        "baseline": next(iter(arms)),
        "seeds": list(SEEDS),
        "folds": 0,
        "axes": list(AXES),
        "tasks": list(TASKS),
        "arms": {
            name: {"labels": labels, "role": "arm", "of": None, "changes": labels}
            for name, labels in arms.items()
        },
        "base": {
            "data": "made",
            "examples": {"train": 1200, "test": 400},
            "epochs": 20,
            "batch_size": 12,
        },
    }
    files.write_json(directory / "study.json", plan)


def write_arm(home: Path, rng: np.random.Generator) -> None:
    """Writes the logs and the result of one arm."""
    home.mkdir(parents=True)
    skill, seeds = rng.normal(), {}
    for seed in SEEDS:
        write = open_jsonl_writer(home / f"metrics-seed{seed}.jsonl", 0)
        level = skill + 0.3 * rng.normal()
        for step in STEPS:
            now = level - 3 * np.exp(-step / 500) + 0.05 * rng.normal()
            write(step, {f"train/loss/{task}": float(np.exp(-now)) for task in TASKS})
            write(step, {f"validation/{m}": v for m, v in make_metrics(now).items()})
        seeds[str(seed)] = {
            "test": make_metrics(level),
            "validation": make_metrics(level),
            "best_step": STEPS[-1],
            "steps": STEPS[-1],
        }
    cost = {"seconds": 9.0, "flops": 3e7, "step_seconds": 0.004, "peak_bytes": 4e7}
    result = {"seeds": seeds, "parameters": {"total": 84_000}, "cost": cost}
    files.write_json(home / "result.json", result)


def make_metrics(level: float) -> dict[str, float]:
    """Returns the metrics of both tasks at a level of quality."""
    accuracy = float(1 / (1 + np.exp(-level)))
    return {"digit/accuracy": accuracy, "digit/loss": 1 - accuracy, "rate/mae": 2 - accuracy}


def main() -> None:
    """Prints the time of each part, and the largest memory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arms", type=int, default=1000)
    count = parser.parse_args().arms
    with tempfile.TemporaryDirectory() as folder:
        directory, arms = Path(folder), make_arms(count)
        write_study(directory, arms)

        def write() -> None:
            write_results.write_results(directory, arms, AXES)

        def write_after_change() -> None:
            last = directory / "arms" / list(arms)[-1] / "result.json"
            files.write_json(last, files.read_json(last) | {"changed": True})
            write()

        parts = {
            "results of all arms": write,
            "results after one more arm": write_after_change,
            "report": lambda: write_report(directory),
        }
        for name, part in parts.items():
            begin = time.process_time()
            part()
            seconds = time.process_time() - begin
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{name}: {seconds:.1f} s of a processor, {peak:,.0f} MB", flush=True)
        page = directory / "report.html"
        print(f"{count} arms; report.html has {page.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
