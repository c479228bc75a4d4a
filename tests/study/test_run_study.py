"""A study from its file to its results; failures, resumption, chunks and a kill."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jaxtyping
import numpy as np
import pandas as pd
import pytest

from mmjax import files
from mmjax.cli import ablate_command as command
from mmjax.config import ConfigError
from mmjax.interrupts import Interrupted
from mmjax.report import write_report
from mmjax.study import run_study as studies
from mmjax.study import study_directory as directories
from mmjax.study import study_plan as plans
from mmjax.study.live_display import StudyDisplay
from mmjax.study.results import load
from mmjax.train.best_variables import load_best
from mmjax.train.hardware.parallel import count_concurrent_replicas
from tests.report import synthetic
from tests.study import small_study
from tests.study.small_study import STUDY

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="module")
def _no_annotations():
    was = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", was)


def small(**fields):
    """Two arms in one program."""
    fields = {"single_task": False, "single_modality": False, "seeds": (0, 1), **fields}
    study = dataclasses.replace(STUDY, axes={"optimizer.learning_rate": ["0.01", "0.03"]}, **fields)
    return plans.make_study_plan("small", study, module=small_study)


def start_and_run(plan, directory, **options):
    directories.start_study(plan, directory, None, {})
    return studies.run_study(plan, directory, devices=jax.devices()[:1], **options)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    directory = tmp_path_factory.mktemp("study")
    plan = small(single_modality=True)
    assert start_and_run(plan, directory) == []
    return plan, directory


def figures(directory):
    """All numbers but costs."""
    frame = load(directory)
    frame = frame[frame.split != "cost"]
    return frame.sort_values(["arm", "seed", "split", "step", "metric"]).reset_index(drop=True)


def check_same(first, second, **tolerances):
    one, other = figures(first), figures(second)
    names = ["arm", "seed", "split", "step", "metric"]
    assert one[names].equals(other[names])
    np.testing.assert_allclose(one.value, other.value, **tolerances)


@pytest.mark.slow
def test_the_table_has_every_arm_seed_and_split(done):
    plan, directory = done
    frame = load(directory)
    assert list(frame.columns[:6]) == ["arm", "seed", "split", "step", "metric", "value"]
    assert set(frame.arm) == set(plan.arms) and set(frame.seed) == {0, 1}
    counts = frame.groupby(["arm", "seed"]).split.unique().map(set)
    assert all(splits == {"train", "validation", "test", "cost"} for splits in counts)
    one = frame[(frame.arm == "learning_rate=0.03") & (frame.seed == 1)]
    assert set(one["optimizer.learning_rate"]) == {"0.03"}
    log = directory / "arms" / "learning_rate=0.03" / "metrics-seed1.jsonl"
    lines = files.read_log(log).records
    logged = {(x["step"], k): v for x in lines for k, v in x.items() if k != "step"}
    rows = one[one.split.isin(["train", "validation"])]
    told = {(r.step, f"{r.split}/{r.metric}"): r.value for r in rows.itertuples()}
    assert told == logged
    assert {k[1] for k in told} > {"train/weight/kind", "validation/size/mae"}
    result = json.loads((log.parent / "result.json").read_text())["seeds"]["1"]
    test = one[one.split == "test"]
    assert dict(zip(test.metric, test.value, strict=True)) == result["test"]
    assert set(test.step) == {result["best_step"]}


@pytest.mark.slow
def test_every_arm_has_the_class_reports_of_a_run(done):
    """The recalls, weighted by the examples, are the mean accuracy over the seeds."""
    _, directory = done
    frame = load(directory)
    accuracy = frame[(frame.split == "test") & (frame.metric == "kind/accuracy")]
    for arm, values in accuracy.groupby("arm").value:
        home = directory / "arms" / arm / "test"
        table = pd.read_csv(home / "kind-classes.csv")
        hits = (table.recall * table.examples).sum()
        assert hits / table.examples.sum() == pytest.approx(values.mean(), abs=1e-5)
        assert {path.name for path in home.glob("*.png")} == {
            "kind-confusion.png",
            "kind-calibration.png",
        }


@pytest.mark.slow
def test_costs_are_those_of_a_lane(done):
    """Dense layers 5-6, 3-6, 12-8, 8-4 and 8-1 with biases; twice as many lanes cost no more."""
    _, directory = done
    frame = load(directory)
    cost = frame[frame.split == "cost"].set_index(["arm", "seed", "metric"]).value
    both = cost["learning_rate=0.01", 0]
    assert both["parameters"] == 36 + 24 + 104 + 36 + 9
    # Forward 2mnk a layer, backward twice that but for the gradients of inputs; and Adam.
    layers = {(5, 6): 2, (3, 6): 2, (12, 8): 3, (8, 4): 3, (8, 1): 3}
    products = sum(2 * 8 * m * n * times for (m, n), times in layers.items())
    assert products < both["flops"] < 2 * products
    assert both["step_seconds"] > 0 and both["seconds"] > 0
    assert both["peak_bytes"] > 3 * 4 * both["parameters"]  # parameters and Adam's moments
    left = cost["single_modality=left", 0]
    assert left["flops"] < both["flops"] and left["parameters"] < both["parameters"]


@pytest.mark.slow
def test_an_arms_directory_is_that_of_a_run(done):
    """Its best parameters can be loaded, and are those of the result."""
    from mmjax.train.checkpoint import hash_arrays

    plan, directory = done
    for name, arm in plan.arms.items():
        home = directory / "arms" / name
        best = jax.device_get(load_best(plan.build(arm.config), home, seeds=(0, 1)))
        result = json.loads((home / "result.json").read_text())["seeds"]
        for i, seed in enumerate("01"):
            one = jax.tree.map(lambda x, i=i: x[i], best)
            assert hash_arrays(one) == result[seed]["best_params_sha256"]
        assert (home / "config.json").exists()
    assert not (directory / "programs").exists()


@pytest.mark.slow
def test_smaller_programs_give_the_same(done, tmp_path, capsys):
    """One lane a program by hand; and as many as fit an artificially small memory."""
    plan, directory = done
    start_and_run(plan, tmp_path / "hand", max_replicas=1)
    check_same(directory, tmp_path / "hand", rtol=2e-3, atol=1e-4)
    costs = load(directory)
    peak = costs[(costs.metric == "peak_bytes") & (costs.arm == "learning_rate=0.01")].value.max()
    needed = count_concurrent_replicas(4, jax.devices()[:1], sharded=False) * peak
    start_and_run(plan, tmp_path / "memory", memory=int(needed - 1))
    check_same(directory, tmp_path / "memory", rtol=2e-3, atol=1e-4)
    said = capsys.readouterr().out
    assert "A program of 4 replicas needs" in said and "in programs of 2 at most" in said


@pytest.mark.slow
def test_what_is_done_is_kept_and_the_rest_is_made(done, tmp_path):
    plan, directory = done
    shutil.copytree(directory, tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "arms" / "learning_rate=0.03")
    kept = tmp_path / "half" / "arms" / "learning_rate=0.01" / "result.json"
    before = kept.stat().st_mtime_ns
    directories.check_study_directory(plan, tmp_path / "half", resume=True)
    assert start_and_run(plan, tmp_path / "half") == []
    assert kept.stat().st_mtime_ns == before
    check_same(directory, tmp_path / "half", rtol=2e-3, atol=1e-4)


@pytest.mark.slow
def test_a_failed_arm_is_recorded_and_the_rest_go_on(tmp_path):
    axes = {
        "rate": {
            "good": {"optimizer.learning_rate": "0.01"},
            "wild": {"optimizer.learning_rate": "1e30"},
            "alone": {"optimizer.learning_rate": "1e30", "model.fusion": "Gated(width=3)"},
        }
    }
    study = dataclasses.replace(
        STUDY, axes=axes, single_task=False, single_modality=False, seeds=(0,)
    )
    plan = plans.make_study_plan("failing", study, module=small_study)
    assert start_and_run(plan, tmp_path) == ["rate=wild", "rate=alone"]
    for name in ("rate=wild", "rate=alone"):
        told = (tmp_path / "arms" / name / "error.txt").read_text()
        assert "NonFiniteError: The " in told and "(seed 0)" in told
    assert set(load(tmp_path).arm) == {"rate=good"}
    # Resumed, it fails again, and the good one is left as it is.
    assert start_and_run(plan, tmp_path) == ["rate=wild", "rate=alone"]


@pytest.mark.slow
def test_another_study_is_not_taken_for_this_one(done, tmp_path):
    plan, directory = done
    with pytest.raises(ConfigError, match="add --resume to continue it"):
        directories.check_study_directory(plan, directory, resume=False)
    directories.check_study_directory(plan, directory, resume=True)
    other = small(single_modality=True, seeds=(0, 2))
    with pytest.raises(ConfigError, match=r"seeds: stored \[0, 1\], requested \[0, 2\]"):
        directories.check_study_directory(other, directory, resume=True)
    longer = plans.make_study_plan("small", plan.study, ["epochs=9"], module=small_study)
    with pytest.raises(ConfigError, match="the base experiment"):
        directories.check_study_directory(longer, directory, resume=True)
    (tmp_path / "x").write_text("")
    with pytest.raises(ConfigError, match="is not empty and does not hold a study"):
        directories.check_study_directory(plan, tmp_path, resume=True)


def test_an_arm_that_does_not_fit_is_named_before_anything_runs():
    plan = dataclasses.replace(STUDY, axes={"batch_size": ["8", "100"]}, vmapped=())
    made = plans.make_study_plan("small", plan, module=small_study)
    with pytest.raises(ConfigError, match="arm batch_size=100: batch_size=100 is more than the 64"):
        plans.check_plan(made, jax.devices()[:1])


@pytest.mark.slow
def test_a_study_from_before_the_plan_knew_its_data_is_resumed(done, tmp_path):
    plan, directory = done
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    facts = json.loads((tmp_path / "study.json").read_text())
    assert facts.pop("base") and facts.pop("sha256")
    (tmp_path / "study.json").write_text(json.dumps(facts))
    directories.check_study_directory(plan, tmp_path, resume=True)


@pytest.mark.slow
def test_a_study_by_the_loss_ends_with_its_table_and_the_reports_command(tmp_path, capsys):
    """From the plan to the table and the report, with what was run in it."""
    plan = small(base=small_study.unmonitored, metric=None, seeds=(0,))
    assert start_and_run(plan, tmp_path) == []
    command.print_arm_results(tmp_path)
    shown = capsys.readouterr().out
    frame = load(tmp_path)
    losses = frame[(frame.split == "test") & (frame.metric == "loss")].set_index("arm").value
    assert len(losses) == 2
    shown = shown.partition("Test split")[2]
    head, *rows = [line for line in shown.splitlines() if line.strip()]
    assert head.split() == ["loss", "↓", "kind", "accuracy", "↑", "size", "mae", "↓"]
    order = losses.sort_values().index
    assert [row.split()[0] for row in rows[1:3]] == [name.partition("=")[2] for name in order]
    assert float(rows[1].split()[1]) == pytest.approx(losses.min(), abs=0.01)
    write_report.write_report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    for words in ("Primary metric: loss ↓", "made: 64 train, 32 validation, 32 test", "2 epochs"):
        assert words in text
    assert not (tmp_path / "figures" / "weights.png").exists()  # equal weights never change


def test_failed_arms_are_in_the_last_table_with_their_errors(tmp_path, capsys):
    directory = synthetic.write_study(tmp_path)
    command.print_arm_results(directory)
    shown = capsys.readouterr().out
    assert "tensor-mgda failed: NonFiniteError: The loss of task 'digit'" in shown
    for name in ("digit accuracy ↑", "rate mae ↓", "tensor, pcgrad", "only task rate"):
        assert name in shown
    assert shown.count(" ± ") == 2 * 18 + 1  # 18 arms have each metric, and the note


@pytest.mark.slow
def test_a_study_that_was_stopped_by_a_signal_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    """Inside an epoch of a program of two arms, which a number tells apart, with two seeds each."""
    plan = small()
    assert start_and_run(plan, tmp_path / "whole") == []
    show = StudyDisplay.show

    @contextlib.contextmanager
    def stopping(*args, **options):
        with show(*args, **options) as report:

            def stop(step, text, *, last=False):
                report(step, text, last=last)
                if step == 4:
                    os.kill(os.getpid(), signal.SIGTERM)

            yield stop

    monkeypatch.setattr(StudyDisplay, "show", stopping)
    with pytest.raises(Interrupted, match="stopped after step 4; its checkpoint is saved"):
        start_and_run(plan, tmp_path / "stopped")
    monkeypatch.undo()
    assert not list((tmp_path / "stopped" / "arms").glob("*/error.txt"))
    assert studies.run_study(plan, tmp_path / "stopped", devices=jax.devices()[:1]) == []
    check_same(tmp_path / "whole", tmp_path / "stopped", rtol=0, atol=0)
    for home in (tmp_path / "whole" / "arms").iterdir():
        other = tmp_path / "stopped" / "arms" / home.name
        for log in home.glob("metrics-seed*.jsonl"):
            assert log.read_bytes() == (other / log.name).read_bytes()
        results = [json.loads((h / "result.json").read_text())["seeds"] for h in (home, other)]
        assert results[0] == results[1]


COMMAND = "from mmjax.cli import script; script()"


def run_command(root, *arguments):
    """`mmjax ablate` on the small study, in a process of its own."""
    settings = {"JAX_PLATFORMS": "cpu", "MMJAX_CACHE": str(root / "cache")}
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    study = str(Path(small_study.__file__))
    with (root / "out.txt").open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, "ablate", study, *arguments],
            env=os.environ | settings | {"PYTHONPATH": path},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


LONG = ("--set", "epochs=60", "--seeds", "0", "1")


@pytest.mark.slow
def test_killed_in_mid_arm_it_ends_as_if_it_had_not_been(tmp_path):
    """Three signals, each some steps further on, in programs of one and of several arms."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_command(tmp_path, *LONG, "--workdir", str(whole)).wait(600) == 0
    hits = 0
    for wanted, signum in ((40, signal.SIGKILL), (240, signal.SIGTERM), (360, signal.SIGINT)):
        process = run_command(tmp_path, *LONG, "--workdir", str(killed), "--resume")
        seen = steps(killed)
        while steps(killed) < seen + wanted and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signum)
        code = -signum if signum == signal.SIGKILL else 128 + signum
        hits += process.wait(60) == code and any((killed / "programs").glob("*"))
    assert hits >= 2
    said = (tmp_path / "out.txt").read_text()
    assert "Traceback" not in said
    assert f"its checkpoint is saved. To continue: mmjax ablate {small_study.__file__}" in said
    assert run_command(tmp_path, *LONG, "--workdir", str(killed), "--resume").wait(600) == 0
    check_same(whole, killed, rtol=0, atol=0)
    for home in sorted((whole / "arms").iterdir()):
        results = [
            json.loads((d / "arms" / home.name / "result.json").read_text())
            for d in (whole, killed)
        ]
        assert results[0]["seeds"] == results[1]["seeds"]


def steps(directory):
    """Lines that all arms have logged."""
    logs = directory.glob("arms/*/metrics-seed*.jsonl")
    return sum(log.read_text().count("\n") for log in logs)


@pytest.mark.slow
def test_the_command_tells_what_a_study_would_take_and_that_arms_failed(tmp_path):
    assert run_command(tmp_path, "--dry-run").wait(300) == 0
    told = (tmp_path / "out.txt").read_text()
    assert "8 arms, 6 programs to compile, 24 replicas: about" in told
    assert "fusion=concat,learning_rate=0.01 (baseline)" in told
    (tmp_path / "out.txt").unlink()
    wild = ("--set", "balancer=static({'kind': 1e38, 'size': 1e38})", "--seeds", "0")
    assert run_command(tmp_path, *wild, "--workdir", str(tmp_path / "wild")).wait(300) == 1
    told = (tmp_path / "out.txt").read_text()
    assert "arms failed: fusion=concat,learning_rate=0.01" in told
    assert f"Report: mmjax report {tmp_path / 'wild'}" in told
