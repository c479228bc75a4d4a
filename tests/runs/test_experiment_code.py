"""A stored run is self-contained: its code runs from the copy, its data are found again."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmjax
from mmjax import cli, files, loaded_code
from mmjax.cli import experiment_commands, request
from mmjax.files.run_files import read_config_file, write_config_file
from mmjax.runs.experiment_code import find_code_copy, run_code_copy
from mmjax.train import run_arms

EXPERIMENT = """
from pathlib import Path

import optax
IMPORTS
from mmjax import Experiment, Model, auto_config
from mmjax.data import from_table
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Regression

HERE = Path(__file__).parent


@auto_config
def experiment() -> Experiment:
    return Experiment(
        data=DATA,
        model=Model(
            encoders={"x": MLPEncoder(features=(4,))}, fusion=Concat(), heads={"y": Regression()}
        ),
        optimizer=optax.sgd(0.01),
        epochs=1,
        batch_size=8,
        eval_batch_size=8,
    )
"""
HELPERS = """
from pathlib import Path

from mmjax.data import from_table


def load(name):
    return from_table(str(Path(__file__).parent / name), inputs={"x": "x"}, targets={"y": "y"})
"""
TABLE = 'from_table({}, inputs={{"x": "x"}}, targets={{"y": "y"}})'
OWN = ("helpers", "parts", "lab", "lab.helpers", "lab.mine", "experiment_file_mine", "mine")


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Stands in for training: collects the experiments that commands build."""
    folder = tmp_path / "lab"
    folder.mkdir()
    rows = np.random.default_rng(0).normal(size=(100, 2))
    (folder / "table.csv").write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in rows))
    (folder / "helpers.py").write_text(HELPERS)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(request, "check_experiments", lambda experiments, devices: None)
    made: list[Any] = []

    def collect(experiments: Mapping[str, Callable[[], Any]], *_: Any, **__: Any) -> None:
        made.extend(make() for make in experiments.values())

    monkeypatch.setattr(run_arms, "run", collect)
    monkeypatch.setattr(experiment_commands, "evaluate_run", collect)
    yield made
    forget()


def forget() -> None:
    """Forgets the experiment's modules, as a new process would not know them."""
    for name in OWN:
        sys.modules.pop(name, None)


def write(data: str, imports: str = "", path: str = "mine.py") -> None:
    Path(path).write_text(EXPERIMENT.replace("DATA", data).replace("IMPORTS", imports))


def command(*argv: str) -> None:
    cli.script([*argv, "--no-compilation-cache"])


def reopened(run: Path, *more: str) -> None:
    """Opens a run as another process does, from another folder."""
    forget()
    elsewhere = run.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    os.chdir(elsewhere)
    command("evaluate", str(run), *more)
    forget()
    command("run", "--from-run", str(run), "--workdir", str(run) + "-again", *more)


@pytest.mark.parametrize(
    ("place", "imports"),
    [
        ('"table.csv"', ""),
        ('HERE / "table.csv"', ""),
        ("PLACE", 'PLACE = str(Path(__file__).parent / "table.csv")'),
        ("PLACE", 'PLACE = Path("table.csv")'),
    ],
)
def test_data_are_found_from_another_folder_without_any_code(
    place: str,
    imports: str,
    built: list[Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(TABLE.format(place), imports)
    command("run", "mine.py", "--workdir", str(tmp_path / "run"))
    assert str(tmp_path / "lab" / "table.csv") in (tmp_path / "run" / "config.json").read_text()
    reopened(tmp_path / "run")
    assert [len(e.data.splits["train"]) for e in built] == [80] * 3
    assert "Running the stored copy" not in capsys.readouterr().err


def test_a_sibling_module_is_stored_and_finds_its_data(
    built: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write('own_data("table.csv")', "import helpers\ndef own_data(name): return helpers.load(name)")
    run = tmp_path / "run"
    command("run", "mine.py", "--workdir", str(run))
    assert sorted(p.name for p in (run / "code").iterdir()) == ["helpers.py", "mine.py"]
    note = files.read_json(run / "code.json")
    assert note == {
        "main": "mine.py",
        "module": None,
        "root": str(tmp_path / "lab"),
        "modules": {"helpers": "helpers.py"},
    }
    for name in ("mine.py", "helpers.py"):
        Path(name).write_text("raise SystemError('the original has changed')")
    reopened(run, "--allow-code")
    assert [len(e.data.splits["train"]) for e in built] == [80] * 3
    error = capsys.readouterr().err
    assert f"Running the stored copy of the experiment's code: {run / 'code' / 'mine.py'}" in error
    assert not list(run.rglob("__pycache__")), "opening leaves the run as it was"
    again = tmp_path / "run-again"
    for name in ("code.json", "code/mine.py", "code/helpers.py", "experiment.py", "config.json"):
        assert (again / name).read_text() == (run / name).read_text()


def test_a_copy_that_was_changed_is_named(
    built: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write('own_data("table.csv")', "import helpers\ndef own_data(name): return helpers.load(name)")
    run = tmp_path / "run"
    command("run", "mine.py", "--workdir", str(run))
    reopened(run, "--allow-code")
    assert "warning" not in capsys.readouterr().err
    (run / "code" / "helpers.py").write_text(HELPERS + "\nx = 1\n")
    forget()
    command("evaluate", str(run), "--allow-code")
    error = capsys.readouterr().err
    assert f"warning: {run / 'code' / 'helpers.py'} is not the code that the run used" in error
    assert error.count("warning") == 1
    (run / "provenance.json").write_text("[")
    forget()
    command("evaluate", str(run), "--allow-code")
    assert "The copy of the experiment's code is not checked." in capsys.readouterr().err


@pytest.mark.slow
def test_functions_of_a_sibling_module_need_no_more_leave_than_the_code(
    built: list[Any], tmp_path: Path
) -> None:
    write('load("table.csv")', "from helpers import load")
    run = tmp_path / "run"
    command("run", "mine.py", "--workdir", str(run))
    Path("helpers.py").unlink()
    reopened(run, "--allow-code")
    assert [len(e.data.splits["train"]) for e in built] == [80] * 3
    forget()
    with pytest.raises(SystemExit):
        command("evaluate", str(run))


@pytest.mark.slow
def test_a_module_of_a_package_with_relative_imports(built: list[Any], tmp_path: Path) -> None:
    write('load("table.csv")', "from .helpers import load")
    Path("__init__.py").write_text("")
    os.chdir("..")
    run = tmp_path / "run"
    command("run", "lab.mine", "--workdir", str(run))
    names = ["lab/__init__.py", "lab/helpers.py", "lab/mine.py"]
    assert [
        p.relative_to(run / "code").as_posix() for p in sorted((run / "code").rglob("*.py"))
    ] == names
    assert json.loads((run / "code.json").read_text())["module"] == "lab.mine"
    (tmp_path / "lab" / "helpers.py").write_text("raise SystemError('the original has changed')")
    reopened(run, "--allow-code")
    assert [len(e.data.splits["train"]) for e in built] == [80] * 3


def test_errors_say_that_a_copy_is_run_and_where(
    built: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write('load("table.csv")', "from helpers import load")
    run = tmp_path / "run"
    command("run", "mine.py", "--workdir", str(run))
    shutil.rmtree(run / "code")
    (run / "code.json").unlink()  # as of a run of before
    forget()
    shutil.move("helpers.py", "gone.py")
    sys.path[:] = [p for p in sys.path if p != str(tmp_path / "lab")]
    write("boom()", "from gone import x\ndef boom(): ...")
    shutil.copyfile("mine.py", run / "experiment.py")
    for path in (run / "config.json", run / "all" / "config.json"):
        write_config_file(path, read_config_file(path).replace('"helpers"', '"<experiment>"'))
    with pytest.raises(SystemExit):
        command("evaluate", str(run), "--allow-code")
    error = capsys.readouterr().err
    assert f"copy of the experiment's code, {run / 'experiment.py'}, cannot be run" in error
    assert "No module named 'gone'" in error and "mmjax evaluate DIR --experiment FILE" in error


@pytest.mark.slow
def test_runs_that_hold_the_experiments_file_alone(built: list[Any], tmp_path: Path) -> None:
    write("data()", HELPERS + "\ndef data(): return load('table.csv')")
    run = tmp_path / "run"
    command("run", "mine.py", "--workdir", str(run))
    shutil.rmtree(run / "code")
    (run / "code.json").unlink()
    shutil.copyfile("table.csv", run / "table.csv")
    reopened(run, "--allow-code")
    assert [len(e.data.splits["train"]) for e in built] == [80] * 3


def test_one_may_name_ones_own_file(built: list[Any], tmp_path: Path) -> None:
    write('own("table.csv")', "import helpers\ndef own(name): return helpers.load(name)")
    run = tmp_path / "run"
    command("run", "mine.py", "--workdir", str(run))
    shutil.rmtree(run / "code")
    file = str(tmp_path / "lab" / "mine.py")
    forget()
    command("evaluate", str(run), "--experiment", file)
    forget()
    command("run", file, "--from-run", str(run), "--workdir", str(tmp_path / "b"))
    assert [len(e.data.splits["train"]) for e in built] == [80] * 3


def test_a_copy_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "evil.py").write_text("")
    note = {"main": "../evil.py", "module": None, "root": "/", "modules": {}}
    (tmp_path / "code.json").write_text(json.dumps(note))
    with pytest.raises(files.DamagedFileError, match="lies outside"):
        find_code_copy(tmp_path)
    (tmp_path / "code.json").write_text("{}")
    with pytest.raises(files.DamagedFileError, match=r"code\.json is damaged"):
        find_code_copy(tmp_path)
    assert find_code_copy(tmp_path / "nowhere") is None


@pytest.mark.slow
def test_the_files_of_a_copy_are_those_of_the_original(built: list[Any], tmp_path: Path) -> None:
    """So that their digests are the same, though `__file__` is the original's."""
    write('own("table.csv")', "import helpers\ndef own(name): return helpers.load(name)")
    command("run", "mine.py", "--workdir", str(tmp_path / "run"))
    module = sys.modules["experiment_file_mine"]
    assert list(loaded_code.list_experiment_files(module)) == ["helpers.py", "mine.py"]
    forget()
    copy = find_code_copy(tmp_path / "run")
    assert copy is not None
    module = run_code_copy(copy)
    assert module.__file__ == str(tmp_path / "lab" / "mine.py")
    found = loaded_code.list_experiment_files(module)
    assert found == {n: tmp_path / "run" / "code" / n for n in ("helpers.py", "mine.py")}


@pytest.mark.slow
def test_a_run_is_evaluated_in_another_process_and_folder(tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    lab.mkdir()
    main = 'if __name__ == "__main__":\n    from mmjax import cli\n    cli.main(experiment)\n'
    text = EXPERIMENT.replace("DATA", 'own("t.csv")') + main
    imports = "import helpers\ndef own(name): return helpers.load(name)"
    (lab / "mine.py").write_text(text.replace("IMPORTS", imports))
    (lab / "helpers.py").write_text(HELPERS)
    values = np.random.default_rng(0).normal(size=(100, 2))
    (lab / "t.csv").write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in values))
    root = str(Path(mmjax.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root, "JAX_PLATFORMS": "cpu"}
    quiet = ["--no-compilation-cache", "--devices", "1"]

    def run(*argv: str, cwd: Path) -> str:
        command = [sys.executable, *argv, *quiet]
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = run("mine.py", "--workdir", str(tmp_path / "run"), cwd=lab)
    (lab / "helpers.py").unlink()
    script = "from mmjax import cli; cli.script()"
    again = run("-c", script, "evaluate", str(tmp_path / "run"), "--allow-code", cwd=tmp_path)
    rows_of = [
        [line.split()[:4] for line in t.splitlines() if line.startswith("all ") and "━" not in line]
        for t in (first, again)
    ]
    assert rows_of[0] == rows_of[1] and rows_of[0]
