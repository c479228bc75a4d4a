"""How commands end that cannot go on, what they print on closed pipes, and what resume refuses."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmjax import cli, files, provenance

EXPERIMENT = """
import flax.linen as nn
import jax.numpy as jnp
import numpy as np, optax
from mmjax.config import auto_config
from mmjax.data import from_arrays
from mmjax.encoders import MLPEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
import beside


class Encoder(nn.Module):
    fault: str = ""

    @nn.compact
    def __call__(self, x, lengths=None, *, train=False):
        if self.fault == "key":
            {}["lost"]
        if self.fault == "shape":
            return x @ jnp.zeros((99, 3))
        return MLPEncoder((3,))(x, train=train)


def loss(logits, targets):
    return jnp.dot(logits, jnp.zeros(77))


def make_data(fault: str = ""):
    rng = np.random.default_rng(beside.SEED)
    kinds = np.array(["数", "ü"] * 8)
    parts = [{"x": rng.normal(size=(16, 4)).astype("f"), "kind": kinds} for _ in range(3)]
    part, splits = parts[0], dict(zip(("train", "validation", "test"), parts))
    if fault == "type":
        return part + 1
    if fault == "value":
        int("three")
    if fault == "key":
        return part["y"]
    return from_arrays(splits, inputs=("x" if fault != "mmjax" else "y",), targets=("kind",))


@auto_config
def experiment() -> Experiment:
    return Experiment(
        data=make_data(fault=""),
        model=Model(
            encoders={"x": Encoder(fault="")}, fusion=Concat(), heads={"kind": Classification(2)}
        ),
        optimizer=optax.sgd(0.01), epochs=1, batch_size=8, eval_batch_size=16,
    )


def ARMS(config):
    return {"数字-ü": config}
"""
FAULTS = {
    "data.fault='type'": "return part + 1",
    "data.fault='value'": 'int("three")',
    "data.fault='key'": 'return part["y"]',
    "data.fault='mmjax'": "return from_arrays(splits,",
    "model.encoders.x.fault='key'": '{}["lost"]',
    "model.encoders.x.fault='shape'": "return x @ jnp.zeros((99, 3))",
    "model.heads.kind.loss=mine:loss": "return jnp.dot(logits, jnp.zeros(77))",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    Path("mine.py").write_text(EXPERIMENT, encoding="utf-8")
    Path("beside.py").write_text("SEED = 0\n")
    yield tmp_path
    for name in ("beside", "mine", "experiment_file_mine"):
        sys.modules.pop(name, None)


def failing(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.script(argv)
    assert ended.value.code in (1, 2)
    return capsys.readouterr().err


@pytest.mark.parametrize("setting", FAULTS)
def test_the_users_own_line_is_shown(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = failing(capsys, "run", "mine.py", "--set", setting)
    line = 1 + next(i for i, text in enumerate(EXPERIMENT.split("\n")) if FAULTS[setting] in text)
    assert f'mine.py", line {line}, in ' in error
    assert f"\n    {FAULTS[setting]}" in error
    assert error.endswith("\nSet MMJAX_TRACEBACK=1 for the whole traceback.\n")
    assert "Traceback (most" not in error and "Fiddle context" not in error


def test_errors_while_the_file_is_read_have_their_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("import os\nthree +\n")
    assert 'mine.py", line 2\n    three +' in failing(capsys, "run", "mine.py")
    Path("mine.py").write_text("import os\nthree\n")
    error = failing(capsys, "run", "mine.py")
    assert error.startswith("error: NameError: name 'three' is not defined\n")
    assert 'mine.py", line 2, in <module>\n    three' in error


def test_bad_configuration_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for setting in ("model.encoder=1", "epochs=0", "optimizer=optax.nothing()"):
        assert failing(capsys, "run", "mine.py", "--set", setting).count("\n") == 1


def test_the_variable_for_tracebacks_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.script(["--help"])
    assert "MMJAX_TRACEBACK=1" in capsys.readouterr().out
    cli.script(["run", "mine.py", "--help"])
    assert "MMJAX_TRACEBACK=1" in capsys.readouterr().out


PRINTING = """
import sys
from mmjax.cli.failures import run_and_report_errors
from mmjax.cli.streams import protect_streams
protect_streams()

def action():
    for i in range(20_000):
        print("line", i, "数字 ü")
        print("to the error stream", file=sys.stderr)
    open("done", "w").close()

sys.exit(run_and_report_errors(action))
"""


def printing(tail: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    Path("printing.py").write_text(PRINTING, encoding="utf-8")
    command = f"set -o pipefail; {sys.executable} printing.py {tail}"
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, env=os.environ | environment
    )


@pytest.mark.parametrize("tail", ["| head -n 1", "2>&1 | head -n 1", "2>&1 >/dev/null | head -n 1"])
def test_a_closed_pipe_stops_nothing(tail: str) -> None:
    done = printing(tail)
    assert done.returncode == 0 and Path("done").exists()
    assert b"Traceback" not in done.stderr and b"BrokenPipe" not in done.stderr


def test_characters_that_the_terminal_lacks_are_replaced() -> None:
    done = printing("2>/dev/null", PYTHONIOENCODING="latin-1")
    assert done.returncode == 0 and Path("done").exists()
    assert "line 0 ?? ü\n".encode("latin-1") in done.stdout


def test_output_that_found_no_room_is_said() -> None:
    done = printing("2>/dev/null >/dev/full")
    assert done.returncode == 1 and Path("done").exists()
    done = printing(">/dev/full 2>&1 | cat", PYTHONUNBUFFERED="1")
    assert done.returncode == 1 and Path("done").exists()


@pytest.mark.slow
def test_resume_refuses_other_code_and_other_data(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    command = ["run", "mine.py", "--workdir", "w", "--resume"]
    cli.script(command)
    before = files.read_json(Path("w/summary.json"))
    cli.script(command)
    (first, second) = provenance.read_records(Path("w"))
    assert first["code"].keys() == {"mine.py", "beside.py"} == second["code"].keys()
    assert first["data"].keys() == {"train", "validation", "test"}
    assert first["data"] == second["data"] and first["devices"]["used"] == {"数字-ü": 1}

    Path("beside.py").write_text("SEED = 1\n")
    del sys.modules["beside"]
    error = failing(capsys, *command)
    assert "w was made with has changed since: the file beside.py, the data of 'train', " in error
    assert "add --allow-changes to continue anyway" in error
    assert len(provenance.read_records(Path("w"))) == 2, "a refusal writes nothing"

    cli.script([*command, "--allow-changes"])
    assert "The run continues with changed parts: the file beside.py" in caplog.text
    assert files.read_json(Path("w/summary.json")) == before, "what was finished is kept"
    cli.script(command)  # what was allowed once is the state to compare with


def test_other_devices_are_said(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    old = provenance.make_record("x", devices_used={"all": 2, "b": 1})
    provenance.append_record(tmp_path, old)
    new = provenance.make_record("x", devices_used={"all": 1, "b": 1})
    provenance.check_unchanged(tmp_path, new, None, allow=False)
    assert "The number of devices changed (all on 1 instead of 2)" in caplog.text


@pytest.mark.slow
def test_of_two_processes_in_a_directory_the_second_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["run", "mine.py", "--workdir", "w", "--resume"]
    more = [*command, "--set", "epochs=5000"]
    first = subprocess.Popen(
        [sys.executable, "-c", "from mmjax import cli; cli.script()", *more],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not Path("w/.lock.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        error = failing(capsys, *more)
        assert f"w is in use by another process (process {first.pid} on " in error
        assert error.count("\n") == 1
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert Path("w/.lock.json").exists(), "a killed process leaves it"
    Path("beside.py").write_text("SEED = 1\n")
    del sys.modules["beside"]
    assert "has changed since" in failing(capsys, *more), "the lock is free"


def test_garbage_is_collected_after_the_start() -> None:
    """Not before 400,000 objects; then what the start made stays, and is looked at no more."""
    code = """
import gc
from mmjax.cli.failures import run_and_report_errors
run_and_report_errors(lambda: None)
assert gc.get_threshold()[0] == 400_000 and not gc.get_freeze_count()
tangle = []
tangle.append(tangle)
gc.collect()
assert gc.get_threshold()[0] == 50_000 and gc.get_freeze_count() > 10_000
del tangle
tangle = []
tangle.append(tangle)
del tangle
assert gc.collect() == 1
run_and_report_errors(lambda: None)
assert gc.get_threshold()[0] == 50_000
"""
    subprocess.run([sys.executable, "-c", code], check=True)
