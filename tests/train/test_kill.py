"""Killed at random moments and resumed, a run gives the bytes of the uninterrupted one.

The runs are processes of their own, started by the command that a user types.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

EXPERIMENT = '''"""A small job with everything that a resumed run must bring back: dropout, missing
labels, a balancer with a state, momentum, a schedule."""

import numpy as np
import optax

from mmjax import cli
from mmjax.balance import uncertainty
from mmjax.config import auto_config
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.encoders import MLPEncoder, RecurrentEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification, Regression
from mmjax.model import Model
from mmjax.sharing import HardSharing
from mmjax.types import Batch


def batch(examples: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 4, examples)
    heard = rng.random(examples) < 0.7
    return Batch(
        inputs={
            "vector": (rng.normal(size=(examples, 8)) + np.eye(8)[kind]).astype(np.float32),
            "sequence": (rng.normal(size=(examples, 9, 3)) + kind[:, None, None]).astype("f"),
        },
        present={"vector": np.ones(examples, bool), "sequence": heard},
        lengths={"sequence": rng.integers(1, 10, examples).astype(np.int32)},
        targets={
            "kind": kind.astype(np.int32),
            "size": (kind + rng.normal(size=examples)).astype(np.float32),
        },
        labeled={"kind": np.ones(examples, bool), "size": rng.random(examples) < 0.5},
    )


def made() -> Dataset:
    sizes = {"train": 256, "validation": 64, "test": 64}
    return Dataset(
        "made",
        {"vector": Modality((8,)), "sequence": Modality((9, 3), sequence=True)},
        {"kind": Task("classification", tuple("abcd")), "size": Task("regression")},
        {name: Arrays(batch(n, seed)) for seed, (name, n) in enumerate(sizes.items())},
    )


@auto_config
def experiment() -> Experiment:
    return Experiment(
        data=made(),
        model=Model(
            encoders={"vector": MLPEncoder(features=(16,)), "sequence": RecurrentEncoder(width=8)},
            fusion=Concat(),
            sharing=HardSharing(features=(16,), dropout=0.3),
            heads={"kind": Classification(4), "size": Regression(mean=1.5, scale=1.5)},
        ),
        balancer=uncertainty(optax.adam(1e-2)),
        optimizer=optax.adam(optax.cosine_decay_schedule(1e-2, decay_steps=960)),
        epochs=60,
        batch_size=16,
        steps_per_dispatch=4,
        monitor="kind/accuracy",
    )


if __name__ == "__main__":
    cli.main(experiment)
'''
EPOCHS, STEPS = 60, 60 * 16
SEEDS = ("3", "8")


class Runs(NamedTuple):
    """Where runs of the experiment are made."""

    root: Path

    def start(self, name: str, *more: str) -> subprocess.Popen:
        """The command, in a process of its own."""
        command = [
            sys.executable,
            str(self.root / "small.py"),
            "--resume",
            "--seeds",
            *SEEDS,
            *more,
        ]
        repository = str(Path(__file__).parents[2])
        settings = {"JAX_PLATFORMS": "cpu", "MMJAX_CACHE": str(self.root / "cache")}
        path = os.pathsep.join(filter(None, [repository, os.environ.get("PYTHONPATH")]))
        with (self.root / f"{name}.txt").open("a") as output:
            return subprocess.Popen(
                [*command, "--workdir", str(self.root / name)],
                env=os.environ | settings | {"PYTHONPATH": path},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def finish(self, name: str) -> None:
        """Runs it to its end."""
        code = self.start(name).wait(timeout=600)
        assert code == 0, (self.root / f"{name}.txt").read_text()[-3000:]

    def arm(self, name: str) -> Path:
        return self.root / name / "all"

    def logs(self, name: str) -> dict[str, bytes]:
        return {s: (self.arm(name) / f"metrics-seed{s}.jsonl").read_bytes() for s in SEEDS}

    def result(self, name: str) -> dict:
        return json.loads((self.arm(name) / "result.json").read_text())

    def step(self, name: str) -> int:
        """The last step that its log holds."""
        path = self.arm(name) / f"metrics-seed{SEEDS[0]}.jsonl"
        found = re.findall(r'^\{"step": (\d+),', path.read_text() if path.exists() else "", re.M)
        return int(found[-1]) if found else 0

    def checkpoints(self, name: str) -> list[int]:
        """The steps of its whole checkpoints."""
        found = (self.arm(name) / "checkpoints").glob("*")
        return sorted(int(p.name) for p in found if p.name.isdecimal())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """With one uninterrupted run, called "whole"."""
    made = Runs(tmp_path_factory.mktemp("kill"))
    (made.root / "small.py").write_text(EXPERIMENT)
    made.finish("whole")
    return made


def figures(result):
    """All of a result but what it cost."""
    return {k: v for k, v in result.items() if k not in ("cost", "sha256")}


def kill_at(process, runs, name, step, delay):
    """Kills a run `delay` seconds after it logged a step; tells whether it was still training."""
    while runs.step(name) < step and process.poll() is None:
        time.sleep(0.005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    killed = process.wait(timeout=60) == -signal.SIGKILL
    return killed and not (runs.arm(name) / "result.json").exists()


@pytest.mark.slow
def test_killed_five_times_it_ends_as_if_it_had_not_been(runs):
    """A moment is a step and then a part of an epoch's time: it may hit a checkpoint half written.

    The steps are drawn one from each fifth of the run, so that every process gets somewhere.
    """
    whole = runs.result("whole")
    cost = whole["cost"]
    epoch = (cost["seconds"] - cost["first_dispatch_seconds"]) / EPOCHS
    draw = random.Random(0)
    moments = []
    for fifth in range(5):
        step = draw.randrange(fifth * STEPS // 5, (fifth + 1) * STEPS // 5 - 32)
        training = kill_at(runs.start("killed"), runs, "killed", step, draw.uniform(0, epoch))
        moments.append((runs.step("killed"), runs.checkpoints("killed"), training))
    # Not before the first checkpoint, nor after the end: there was something to bring back.
    hits = [m for m in moments if m[1] and m[0] < STEPS and m[2]]
    assert len(hits) >= 3, moments
    # Some fell between two checkpoints, so that steps were lost and made again.
    assert any(step > kept[-1] for step, kept, _ in hits), moments

    runs.finish("killed")
    assert figures(runs.result("killed")) == figures(whole)
    for seed in SEEDS:
        assert len(whole["seeds"][seed]["last_params_sha256"]) == 64
    assert runs.logs("killed") == runs.logs("whole")
    assert "damaged" not in (runs.root / "killed.txt").read_text()


@pytest.mark.slow
def test_preempted_inside_epochs_it_loses_no_step_and_ends_as_if_it_had_not_been(runs):
    """By each signal; each time it says how to go on, and keeps the last logged step."""
    whole, name = runs.result("whole"), "preempted"
    for step, signum in ((100, signal.SIGTERM), (450, signal.SIGINT), (750, signal.SIGHUP)):
        process = runs.start(name)
        while runs.step(name) < step and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signum)
        assert process.wait(timeout=60) == 128 + signum
        assert runs.checkpoints(name)[-1] == runs.step(name) >= step
    text = (runs.root / f"{name}.txt").read_text()
    assert text.count("its checkpoint is saved. To continue: ") == 3
    assert "Traceback" not in text and f"--resume --workdir {runs.root / name}" in text
    runs.finish(name)
    assert figures(runs.result(name)) == figures(whole)
    assert runs.logs(name) == runs.logs("whole")


@pytest.mark.slow
def test_a_second_signal_ends_the_run_at_once(runs):
    process = runs.start("impatient")
    while runs.step("impatient") < 100 and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGSTOP)  # both wait for it
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(timeout=60) in (-signal.SIGINT, -signal.SIGTERM, 143, 130)
    runs.finish("impatient")
    assert runs.logs("impatient") == runs.logs("whole")


@pytest.mark.slow
def test_checkpoints_inside_epochs_change_nothing(runs):
    process = runs.start("often", "--checkpoint-every", "7")
    assert process.wait(timeout=600) == 0
    assert figures(runs.result("often")) == figures(runs.result("whole"))
    assert runs.logs("often") == runs.logs("whole")


@pytest.mark.slow
def test_a_second_run_gives_the_same_bytes(runs):
    runs.finish("second")
    assert figures(runs.result("second")) == figures(runs.result("whole"))
    assert runs.logs("second") == runs.logs("whole")


@pytest.mark.slow
def test_the_run_was_one_that_could_have_differed(runs):
    """It learns, its seeds differ, and its log has every dispatch and every validation."""
    one, other = (runs.result("whole")["seeds"][s] for s in SEEDS)
    assert one["steps"] == other["steps"] == STEPS
    assert one["test"]["kind/accuracy"] > 0.6  # chance is 0.25
    assert one["last_params_sha256"] != other["last_params_sha256"]
    assert one["best_params_sha256"] != one["last_params_sha256"]
    for log in runs.logs("whole").values():
        steps = [json.loads(line)["step"] for line in log.splitlines()]
        assert steps == sorted([*range(4, STEPS + 1, 4), *range(16, STEPS + 1, 16)])
