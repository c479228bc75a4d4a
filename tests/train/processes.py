"""Runs a program in one process and in two that train together, and compares what they write."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def compare_one_process_with_two(program, directory, timeout):
    """Compares one process of four devices with two of two devices, whose data are streamed.

    Args:
      program: gets [processes, number of this one, port, directory, whether to stream] as JSON, and
        writes DIRECTORY-NUMBER.npz, parameters, and DIRECTORY-NUMBER.json, a list of test metrics.
      directory: where the results go.
      timeout: seconds for each process.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    runs = [_start(program, 1, 0, 0, str(directory / "one"), False)]
    runs += [_start(program, 2, i, port, str(directory / "two"), True) for i in (0, 1)]
    for run in runs:
        output = run.communicate(timeout=timeout)[0]
        assert run.returncode == 0, output
    found = {n: np.load(directory / f"{n}.npz") for n in ("one-0", "two-0", "two-1")}
    for name in found["one-0"].files:
        np.testing.assert_array_equal(found["two-0"][name], found["two-1"][name])
        np.testing.assert_allclose(found["two-0"][name], found["one-0"][name], atol=1e-5)
    tests = [json.loads((directory / f"{n}.json").read_text())[0] for n in found]
    for other in tests[1:]:
        assert other == pytest.approx(tests[0], abs=1e-4)


# An installed distribution may have a package called "tests", which would be found before ours.
_IMPORT_OUR_TESTS = """
import sys, types
sys.modules["tests"] = types.ModuleType("tests")
sys.modules["tests"].__path__ = ["tests"]
"""


def _start(program, *arguments):
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", _IMPORT_OUR_TESTS + program, json.dumps(arguments)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
