"""A made-up study in its directory: what the reading side reads, without any training."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

FUSIONS = ("concat", "gated", "tensor", "low_rank")
BALANCERS = ("equal", "uncertainty", "pcgrad", "mgda")
TASKS = ("digit", "rate")
DIRECTIONS = {
    "digit/accuracy": "max",
    "digit/macro_f1": "max",
    "rate/mae": "min",
    "rate/r2": "max",
}
STEPS = np.arange(100, 2001, 100)
SKILL = {  # what a label adds to the quality, in standard deviations between seeds
    "concat": 0.0, "gated": 1.5, "tensor": 3.0, "low_rank": 2.0,
    "equal": 0.0, "uncertainty": 0.5, "pcgrad": 0.8, "mgda": -6.0,
}  # fmt: skip
TRADE = {"uncertainty": -2.0, "pcgrad": 2.0, "mgda": 6.0}  # what the second task has beyond that

CONFIG = {  # what `mmjax.config.dump_config` writes of {"epochs": 20, "optimizer": "adam"}
    "root": {"type": "ref", "key": "a"},
    "objects": {
        "a": {
            "type": {"module": "builtins", "name": "dict"},
            "items": [
                ["Key(key='epochs')", {"type": "leaf", "value": 20}],
                ["Key(key='optimizer')", {"type": "leaf", "value": "adam"}],
            ],
            "metadata": {"type": "leaf", "value": None},
        }
    },
}
STARTS = [
    {
        "time": f"2026-01-0{day}T12:00:00+00:00",
        "command": f"mmjax ablate study.py --workdir runs/study{more}",
        "git": {"revision": "0123abcd", "dirty": day == 2},
        "versions": {"python": "3.11.7", "jax": "0.10.2", "flax": None},
        "platform": "Linux",
        "devices": {"backend": "cpu", "kinds": {"cpu": 2}},
    }
    for day, more in ((1, ""), (2, " --resume"))
]


def write_study(
    directory: Path,
    *,
    fusions=FUSIONS,
    balancers=BALANCERS,
    seeds=(0, 1, 2, 3, 4),
    singles=True,
    failed=("tensor-mgda",),
    metric="digit/accuracy",
    diagnostics=True,
    edit=None,
) -> Path:
    """Writes a study of fusions × balancers and returns its directory.

    Args:
      directory: where.
      fusions: labels of the first axis.
      balancers: labels of the second axis.
      seeds: the seeds.
      singles: whether it has single-task and single-modality arms.
      failed: arms that failed.
      metric: the primary metric.
      diagnostics: whether conflicts were logged.
      edit: results -> results, done before they are written.
    """
    arms = {
        f"{f}-{b}": {
            "labels": {"fusion": f, "balancer": b},
            "role": "arm",
            "of": None,
            "changes": {"model.fusion": f"{f}()", "balancer": f"{b}()"},
        }
        for f in fusions
        for b in balancers
    }
    if singles:
        for role, units in (("single_task", TASKS), ("single_modality", ("image", "speech"))):
            for unit in units:
                arms[f"{role}-{unit}"] = {"labels": {}, "role": role, "of": unit, "changes": {}}
    rows = []
    for i, (name, arm) in enumerate(arms.items()):
        (directory / "arms" / name).mkdir(parents=True)
        if name in failed:
            (directory / "arms" / name / "error.txt").write_text(
                'Traceback (most recent call last):\n  File "loop.py", line 1, in fit\n'
                "NonFiniteError: The loss of task 'digit' is nan at step 412 (seed 3).\n"
            )
        else:
            rng = np.random.default_rng(i)
            rows += [row for s in seeds for row in run_rows(name, arm, s, rng, diagnostics)]
    frame = pd.DataFrame(
        rows, columns=["arm", "seed", "split", "step", "metric", "value", "fusion", "balancer"]
    )
    (edit(frame) if edit else frame).to_parquet(directory / "results.parquet")
    plan = {
        "name": "fusions_and_balancers",
        "metric": metric,
        "direction": DIRECTIONS[metric],
        "directions": DIRECTIONS,
        "baseline": f"{fusions[0]}-{balancers[0]}",
        "seeds": list(seeds),
        "axes": ["fusion", "balancer"],
        "tasks": list(TASKS),
        "arms": arms,
        "base": {
            "data": "made",
            "examples": {"train": 1200, "validation": 300, "test": 400},
            "epochs": 20,
            "batch_size": 12,
        },
    }
    (directory / "study.json").write_text(json.dumps(plan))
    (directory / "config.json").write_text(json.dumps(CONFIG))
    (directory / "provenance.json").write_text(json.dumps(STARTS))
    return directory


def run_rows(name, arm, seed, rng, diagnostics):
    """All rows of one arm and seed."""
    labels = arm["labels"]
    skill = sum(SKILL.get(label, 0.0) for label in labels.values())
    skill -= {"single_modality": 9.0, "single_task": -1.0, "arm": 0.0}[arm["role"]]
    skill += rng.normal() + np.random.default_rng(seed).normal()
    other = skill + TRADE.get(labels.get("balancer"), 0.0) + rng.normal()
    tasks = [arm["of"]] if arm["role"] == "single_task" else list(TASKS)
    common = (name, seed), (labels.get("fusion", ""), labels.get("balancer", ""))

    def row(split, step, metric, value):
        return (*common[0], split, int(step), metric, float(value), *common[1])

    def scores(skill, other):
        accuracy = 1 / (1 + np.exp(-3.2 - 0.12 * skill))
        found = {
            "digit/accuracy": accuracy,
            "digit/macro_f1": accuracy - 0.004,
            "digit/loss": -np.log(accuracy),
            "rate/mae": 14 - 0.5 * other,
            "rate/r2": 0.93 + 0.006 * other,
            "rate/loss": 0.07 - 0.002 * other,
        }
        return {m: v for m, v in found.items() if m.split("/")[0] in tasks}

    rows = [row("test", STEPS[-1 - seed % 3], m, v) for m, v in scores(skill, other).items()]
    for step in STEPS:
        late = 25 * np.exp(-step / 350) - 0.4 * rng.normal()
        found = scores(skill - late, other - late)
        rows += [row("validation", step, m, v) for m, v in found.items()]
        share = 0.5 + 0.35 * np.tanh(step / 600) * (labels.get("balancer") in ("mgda", "pcgrad"))
        weights = dict(zip(TASKS, (share, 1 - share), strict=True))
        for task in tasks:
            weight = 2 * weights[task] + 0.05 * rng.normal() if len(tasks) > 1 else 1.0
            rows.append(row("train", step, f"weight/{task}", weight))
            rows.append(row("train", step, f"loss/{task}", np.exp(-step / 400) + 0.1))
        if diagnostics and len(tasks) > 1:
            conflicts = np.clip(0.25 + 0.2 * step / 2000 + 0.05 * rng.normal(), 0, 1)
            rows.append(row("train", step, "conflicts", conflicts))
            rows.append(row("train", step, "cosine/digit,rate", 0.3 - 0.5 * conflicts))
            rows.append(row("train", step, "condition", 3 + rng.random()))
    width = 1 + FUSIONS.index(labels["fusion"]) if labels.get("fusion") in FUSIONS else 1
    cost = {
        "parameters": 84_000 + 61_234 * width,
        "flops": 3.1e7 * width * (1.6 if labels.get("balancer") in ("pcgrad", "mgda") else 1),
        "step_seconds": 0.004 * width + 0.0003 * rng.random(),
        "peak_bytes": 4.2e7 * width,
        "seconds": 31.5 * width + rng.random(),
    }
    return rows + [row("cost", STEPS[-1], m, v) for m, v in cost.items()]
