"""Worker processes know the classes of an experiment's file, report errors, and end in time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax.config.experiment_source import import_file
from mmjax.data import workers
from mmjax.data.pipeline import make_on_device_feed
from mmjax.data.sampling.batch_order import TrainIndexPlan
from mmjax.data.streaming import make_streaming_feed
from mmjax.data.workers import FetchError, SendableChunks, WorkerKilledError, check_workers_alive

REPOSITORY = Path(__file__).parents[2]
FILE = '''
import os
import sys
import numpy as np
from beside import OFFSET
from mmjax.types import Batch


class OddError(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, message, code):
        super().__init__(message)
        self.why = lambda: code


class Numbers:
    """Examples that hold their own index; reading fails in the way that `failure` names."""

    def __init__(self, failure=None):
        self.failure = failure

    def __len__(self):
        return 32

    def take(self, indices):
        if self.failure == "error":
            raise ValueError("row 3 is bad")
        if self.failure == "odd":
            raise OddError("row 4 is odd", 4)
        if self.failure == "kill":
            os.kill(os.getpid(), 9)
        here = np.ones(len(indices), bool)
        y = np.asarray(indices, np.int32) + OFFSET
        return Batch({"x": y[:, None]}, {"x": here}, {}, {"y": y}, {"y": here})
'''
PLAN = TrainIndexPlan((0,), 32, 8, ((0, 2), (2, 4)))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """An experiment's file, as `mmjax run` imports it; it imports what lies beside it."""
    monkeypatch.syspath_prepend(REPOSITORY)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside.py").write_text("OFFSET = 0\n")
    (tmp_path / "numbers_file.py").write_text(FILE)
    yield import_file(tmp_path / "numbers_file.py")
    for name in ("beside", "experiment_file_numbers_file"):
        del sys.modules[name]


def test_the_files_that_workers_must_import_are_known_by_their_paths(module, tmp_path):
    files = workers.find_modules_imported_by_path()
    assert files["experiment_file_numbers_file"] == str(tmp_path / "numbers_file.py")


def test_errors_that_cannot_be_sent_become_ones_with_their_text(module):
    class Failing:
        def __len__(self):
            return 1

        def __getitem__(self, number):
            return module.Numbers(("error", "odd")[number]).take([])

    with pytest.raises(ValueError, match="row 3 is bad"):
        SendableChunks(Failing())[0]
    with pytest.raises(FetchError, match="OddError: row 4 is odd") as error:
        SendableChunks(Failing())[1]
    line = 1 + FILE.splitlines().index('            raise OddError("row 4 is odd", 4)')
    assert f'numbers_file.py", line {line}' in str(error.value)


def test_a_killed_worker_is_told_from_other_errors():
    check_workers_alive(RuntimeError("no memory in the user's own function"), 2)
    text = "Worker process was terminated unexpectedly with exit code -9. Search the logs above."
    with pytest.raises(WorkerKilledError, match=r"one of the 2 worker .*\(exit code -9\)"):
        check_workers_alive(RuntimeError(text), 2)


@pytest.mark.slow
def test_workers_fetch_from_a_class_of_the_experiments_file(module):
    devices = jax.devices()[:1]
    source = module.Numbers()
    expected = [
        np.asarray(i)
        for _, i in make_on_device_feed(source.take(np.arange(32)), devices).chunks(PLAN)
    ]
    feed = make_streaming_feed(source, devices, workers=2)
    for (data, indices), wanted in zip(feed.chunks(PLAN), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(data.targets["y"][0])[indices], wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        ("error", ValueError, "row 3 is bad"),
        ("odd", FetchError, "row 4 is odd"),
        ("kill", WorkerKilledError, "exit code -9"),
    ],
)
def test_what_goes_wrong_in_a_worker_ends_the_run(module, failure, kind, words):
    feed = make_streaming_feed(module.Numbers(failure), jax.devices()[:1], workers=1)
    with pytest.raises(kind, match=words) as error:
        list(feed.chunks(PLAN))
    if failure == "error":  # the user's file and line
        assert any(entry.path.name == "numbers_file.py" for entry in error.traceback)


def children(pid):
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]


def is_running(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(module, tmp_path, signum):
    """Ctrl-C reaches all processes of the terminal's group; SIGKILL the parent alone."""
    program = Path(__file__).with_name("streaming_program.py")
    command = [sys.executable, str(program), str(tmp_path / "numbers_file.py")]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(4):  # both workers have sent something
        assert process.stdout.readline() == "fetched\n"
    workers = children(process.pid)
    assert len(workers) >= 2  # and multiprocessing's resource tracker
    if signum == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, signum)
    _, errors = process.communicate(timeout=60)
    end = time.monotonic() + 60
    while any(map(is_running, workers)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(is_running, workers))
    assert "Traceback" not in errors, errors
