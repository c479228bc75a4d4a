"""`mmjax run` in several processes: as one process, and after kills of any of them."""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmjax.cli.jax_setup import check_process_options
from mmjax.config import ConfigError
from tests.study import small_study

REPOSITORY = Path(__file__).parents[2]
COMMAND = "from mmjax.cli import script; script()"
RUN = ("run", str(Path(small_study.__file__)), "--set", "optimizer=optax.sgd(0.03)", "--set")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"process_id": 1}, "need --coordinator"),
        ({"coordinator": "a:1", "distributed": True}, "drop it, or --coordinator"),
        ({"coordinator": "a:1", "process_id": 1}, "needs --process-id I and --num-processes N"),
        ({"coordinator": "a:1", "process_id": 2, "num_processes": 2}, "the last is number 1"),
        ({"distributed": True, "workdir": None}, "needs --workdir DIR, the same for all"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(options, words):
    given = {"coordinator": None, "process_id": None, "num_processes": None, "distributed": False}
    with pytest.raises(ConfigError, match=words):
        check_process_options(argparse.Namespace(**given | {"workdir": Path("x")} | options))


def start(root, count, devices, *arguments):
    """Starts the processes of a run, each with its log."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = []
    for number in range(count):
        together = ("--coordinator", f"localhost:{port}", "--process-id", str(number))
        together = (*together, "--num-processes", str(count)) if count > 1 else ()
        settings = {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAXTYPING_DISABLE": "1",
            "MMJAX_CACHE": str(root / "cache"),
            "PYTHONPATH": str(REPOSITORY),
        }
        with (root / f"process{number}.txt").open("a") as output:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", COMMAND, *RUN, *arguments, *together],
                    env=os.environ | settings,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
    return processes


def wait(root, processes):
    for number, process in enumerate(processes):
        code = process.wait(240)
        assert code == 0, (root / f"process{number}.txt").read_text()[-3000:]


def read_log(directory):
    text = (directory / "all" / "metrics-seed0.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_two_processes_killed_at_random_end_as_one_process_does(tmp_path):
    """Two processes of two devices against one of four; SGD, so that round-off stays small."""
    one, two = tmp_path / "one", tmp_path / "two"
    options = ("epochs=30", "--checkpoint-every", "20", "--devices", "4")
    wait(tmp_path, start(tmp_path, 1, 4, *options, "--workdir", str(one)))
    rng = random.Random(0)
    for victim in (1, 0):
        processes = start(tmp_path, 2, 2, *options, "--workdir", str(two), "--resume")
        seen = len(read_log(two)) if (two / "all" / "metrics-seed0.jsonl").exists() else 0
        wanted, end = seen + rng.randint(10, 40), time.monotonic() + 120
        while time.monotonic() < end and all(p.poll() is None for p in processes):
            log = two / "all" / "metrics-seed0.jsonl"
            if log.exists() and log.read_text().count("\n") >= wanted:
                break
            time.sleep(0.02)
        processes[victim].send_signal(signal.SIGKILL)
        time.sleep(1)
        for process in processes:  # as a cluster ends the rest of a job
            process.kill()
            process.wait(60)
    wait(tmp_path, start(tmp_path, 2, 2, *options, "--workdir", str(two), "--resume"))
    assert not (two / "summary.json").read_text().startswith("{}")
    first, second = read_log(one), read_log(two)
    assert [r["step"] for r in first] == [r["step"] for r in second]
    for a, b in zip(first, second, strict=True):
        assert {k: v for k, v in b.items() if k != "crc32"} == pytest.approx(
            {k: v for k, v in a.items() if k != "crc32"}, rel=1e-3, abs=1e-4
        )
    tests = [json.loads((d / "all" / "result.json").read_text())["seeds"]["0"] for d in (one, two)]
    assert tests[1]["test"] == pytest.approx(tests[0]["test"], rel=1e-3, abs=1e-4)
    assert "Traceback" not in (tmp_path / "process0.txt").read_text().rpartition("Work dir")[2]
