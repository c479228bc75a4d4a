"""The command line: what it refuses, what it hands to training, what it writes."""

import argparse
import json
import logging
import os
import runpy
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pytest

from mmjax import cli, files
from mmjax.cli import experiment_commands, jax_setup, request
from mmjax.cli.failures import run_and_report_errors
from mmjax.cli.jax_setup import set_compilation_cache
from mmjax.cli.options import parse_steps_or_time
from mmjax.cli.request import check_experiments
from mmjax.interrupts import SIGNALS
from mmjax.runs import workdir
from mmjax.train import run_arms

FILE = '''"""A stand-in experiment."""

import dataclasses

import optax

import beside
from mmjax import cli, files
from mmjax.config import auto_config, single_modality
from mmjax.encoders import ConvEncoder, MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Regression
from mmjax.model import Model


@dataclasses.dataclass(frozen=True)
class Experiment:
    data: object
    model: Model
    optimizer: optax.GradientTransformation
    epochs: int = 10

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}; it must be at least 1.")


MADE = []


def make_data(size: int = 3) -> object:
    MADE.append(size)
    return beside.Data(size)


@auto_config
def experiment() -> Experiment:
    return Experiment(
        data=make_data(size=4),
        model=Model(
            encoders={"image": ConvEncoder(), "audio": MLPEncoder()},
            fusion=Concat(),
            heads={"rate": Regression()},
        ),
        optimizer=optax.adam(1e-3),
    )


def epochs_and_double(config):
    import copy

    double = copy.deepcopy(config)
    double.epochs = 2 * config.epochs
    return {"all": config, "double": double}


ARMS = ARMS_HERE

if __name__ == "__main__":
    cli.main(experiment, arms=ARMS)
'''

BESIDE = """
import dataclasses

@dataclasses.dataclass
class Data:
    size: int
"""


class Call(NamedTuple):
    """What training was asked for."""

    experiments: dict[str, Any]
    directory: Path
    seeds: Sequence[int]
    resuming: bool
    devices: int | None


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs in a directory of its own, and leaves imports and JAX as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(jax_setup, "set_compilation_cache", lambda directory: None)
    monkeypatch.setattr(request, "check_experiments", lambda experiments, devices: None)
    (tmp_path / "beside.py").write_text(BESIDE)
    write_experiment("single_modality")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name in ("beside", "mine", "experiment_file_mine", "experiment_file_experiment"):
            del sys.modules[name]


def write_experiment(arms: str) -> None:
    Path("mine.py").write_text(FILE.replace("ARMS_HERE", arms))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Stands in for training, and notes what it is asked for."""
    noted: list[Call] = []

    def train(
        experiments: dict[str, Callable[[], Any]], *, workdir: Path, seeds: Sequence[int],
        resume: bool, devices: int | None, checkpoint_every: Any, checked: bool
    ) -> None:  # fmt: skip
        assert checked  # by the command, before it wrote anything
        built = {arm: make() for arm, make in experiments.items()}
        noted.append(Call(built, workdir, tuple(seeds), resume, devices))

    monkeypatch.setattr(run_arms, "run", train)
    return noted


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The error that a command ends in."""
    capsys.readouterr()
    files = sorted(Path().rglob("*.json"))
    with pytest.raises(SystemExit) as ended:
        cli.script(argv)
    assert ended.value.code == 2
    assert sorted(Path().rglob("*.json")) == files, "a refusal writes nothing"
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_a_run_gets_its_arms_seeds_and_settings(calls: list[Call]) -> None:
    cli.script(["run", "mine.py", "--set", "epochs=2", "--seeds", "3", "1", "--workdir", "w"])
    (call,) = calls
    assert call.seeds == (3, 1) and not call.resuming and call.directory == Path("w")
    assert list(call.experiments) == ["all", "image", "audio"]
    assert [e.epochs for e in call.experiments.values()] == [2, 2, 2]
    assert list(call.experiments["image"].model.encoders) == ["image"]


def test_the_arms_share_their_data(calls: list[Call]) -> None:
    write_experiment("epochs_and_double")
    cli.script(["run", "mine.py"])
    made = calls[0].experiments
    assert (made["all"].epochs, made["double"].epochs) == (10, 20)
    assert made["all"].data is made["double"].data
    assert sys.modules["experiment_file_mine"].MADE == [4]


def test_no_arms_is_one_arm(calls: list[Call]) -> None:
    write_experiment("None")
    cli.script(["run", "mine.py"])
    assert list(calls[0].experiments) == ["all"]


def test_the_directory_holds_what_made_the_run(calls: list[Call]) -> None:
    cli.script(["run", "mine.py", "--set", "epochs=2", "--workdir", "deep/w"])
    directory = Path("deep/w")
    assert files.read_json(directory / "run.json") == {
        "experiment": "mine",
        "seeds": [0],
        "arms": ["all", "image", "audio"],
        "arms_function": "mmjax.config.arms:single_modality",
    }
    (record,) = json.loads((directory / "provenance.json").read_text())
    assert record["command"] == "mmjax run mine.py --set epochs=2 --workdir deep/w"
    assert (directory / "experiment.py").read_text() == Path("mine.py").read_text()
    table = (directory / "config.txt").read_text()
    assert "\nepochs " in table and "\noptimizer.b1 " in table
    for arm in ["", "all", "image", "audio"]:
        assert json.loads((directory / arm / "config.json").read_text())["root"]
    assert sorted(p.name for p in Path("deep").iterdir()) == ["w"], "no draft is left behind"


def test_directories_are_never_used_twice(calls: list[Call]) -> None:
    for _ in range(3):
        cli.script(["run", "mine.py"])
    assert len({call.directory for call in calls}) == 3
    assert {call.directory.parent for call in calls} == {Path("runs/mine")}


def test_an_empty_directory_will_do(calls: list[Call]) -> None:
    Path("w").mkdir()
    cli.script(["run", "mine.py", "--workdir", "w"])
    assert (Path("w") / "image" / "config.json").exists()
    assert sorted(p.name for p in Path().glob(".w*")) == []


def test_the_current_directory_will_do(calls: list[Call], monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path("mine.py").absolute()
    Path("w").mkdir()
    monkeypatch.chdir("w")
    cli.script(["run", str(file), "--workdir", "."])
    assert Path("image/config.json").exists()


def test_of_two_runs_that_start_in_one_directory_the_second_is_refused(
    calls: list[Call], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.script(["run", "mine.py", "--workdir", "w"])
    before = Path("w/run.json").read_text()
    monkeypatch.setattr(workdir, "may_resume", lambda *_, **__: False)  # asked before the first
    error = refused(capsys, "run", "mine.py", "--workdir", "w", "--seeds", "5")
    assert "another process has just started a run in" in error
    assert Path("w/run.json").read_text() == before and len(calls) == 1


def test_only_the_first_process_writes_the_directory(
    calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    cli.script(["run", "mine.py", "--workdir", "w"])
    assert len(calls) == 1 and not Path("w").exists()


def test_resume_starts_and_then_continues(calls: list[Call]) -> None:
    for _ in range(2):
        cli.script(["run", "mine.py", "--resume", "--workdir", "w", "--set", "epochs=2"])
    assert [call.resuming for call in calls] == [False, True]
    assert len(json.loads((Path("w") / "provenance.json").read_text())) == 2


def test_a_default_written_out_is_the_same_run(calls: list[Call]) -> None:
    cli.script(["run", "mine.py", "--workdir", "w"])
    cli.script(["run", "mine.py", "--workdir", "w", "--resume", "--set", "epochs=10"])
    assert calls[1].resuming


def test_a_run_of_the_file_and_of_the_module_are_the_same(calls: list[Call]) -> None:
    cli.script(["run", "mine.py", "--workdir", "w"])
    cli.script(["run", "mine", "--workdir", "w", "--resume"])
    cli.script(["run", "mine:experiment", "--workdir", "w", "--resume"])
    assert [call.resuming for call in calls] == [False, True, True]


def test_a_directory_of_another_run_is_refused(
    calls: list[Call], capsys: pytest.CaptureFixture[str]
) -> None:
    cli.script(["run", "mine.py", "--workdir", "w"])
    assert "already holds a run; add --resume" in refused(
        capsys, "run", "mine.py", "--workdir", "w"
    )
    again = ["run", "mine.py", "--workdir", "w", "--resume"]
    error = refused(capsys, *again, "--set", "epochs=3", "--seeds", "1", "2")
    assert "w holds a run of a different configuration:" in error
    assert "  epochs: stored 10, asked 3\n" in error
    assert "  seeds: stored (0,), asked (1, 2)\n" in error
    error = refused(capsys, *again, "--set", "model.encoders.image=None")
    assert "arms: stored ['all', 'image', 'audio'], asked ['all']" in error
    error = refused(capsys, *again, "--set", "optimizer=optax.adafactor(0.1)")
    assert error.count("\n") == 12 and error.splitlines()[-1].endswith(" more")
    write_experiment("lambda config: {'all': config, 'image': config, 'audio': config}")
    assert "  image: model.encoders.audio: stored nothing" in refused(capsys, *again)
    (Path("other")).mkdir()
    (Path("other") / "notes.txt").write_text("mine")
    assert "not empty" in refused(capsys, "run", "mine.py", "--workdir", "other")
    error = refused(capsys, "run", "mine.py", "--workdir", "other", "--resume")
    assert "other holds no run" in error


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["run", "mine.py", "--set", "epohcs=3"], "Did you mean epochs?"),
        (["run", "mine.py", "--set", "epochs=x"], "epochs is 'x'; expected int."),
        (["run", "mine.py", "--set", "epochs=0"], "epochs is 0; it must be at least 1."),
        (["run", "mine.py", "--set", "model.encoders.image.features=()"],
         "error: model.encoders.image: ConvEncoder.features is empty"),
        (["run", "mine.py", "--seeds", "1", "1"], "the seeds must differ"),
        (["run", "mine.py", "--seeds", "-1"], "--seeds"),
        (["run", "mine.py", "--seeds", "x"], "'x' is not a whole number"),
        (["run", "mine.py", "--devices", "0"], "'0' is not at least 1"),
        (["run", "mine.py", "--devices", "99"], f"there is only {len(jax.devices())}"),
        (["run", "mine.py", "--resume"], "--resume needs --workdir"),
        (["run", "mine.py", "--workdir", "mine.py"], "mine.py is a file"),
        (["run", "mine.py", "--workdir", "mine.py/w"], "cannot write mine.py/w"),
        (["run", "mine.py", "--from-run", "nowhere"], "nowhere holds no run"),
        (["run", "mine.py:other"], "mine.py defines no function 'other'"),
        (["run", "mine.py:experimant"], "Did you mean experiment"),
        (["run", "mine.py:make_data"], "'make_data' is not an experiment; decorate it"),
        (["run", "no.py"], "the file no.py does not exist"),
        (["run", "no_such"], "the module no_such does not exist"),
        (["run"], "name an experiment"),
        (["run", "mine.py", "--seed", "1"], "unrecognized arguments"),
        (["evaluate", "nowhere"], "nowhere holds no run"),
        ([], "required"),
    ],
)  # fmt: skip
def test_refuses(
    argv: list[str], said: str, calls: list[Call], capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, *argv)
    assert calls == []


def test_from_run_repeats_a_run(calls: list[Call]) -> None:
    cli.script(["run", "mine.py", "--set", "epochs=2", "--seeds", "5", "6", "--workdir", "a"])
    cli.script(["run", "mine.py", "--from-run", "a", "--workdir", "b"])
    cli.script(["run", "mine.py", "--from-run", "a", "--set", "epochs=3", "--seeds", "1"])
    first, second, third = calls
    assert second.seeds == (5, 6) and third.seeds == (1,)
    assert [e.epochs for e in second.experiments.values()] == [2, 2, 2]
    assert [e.epochs for e in third.experiments.values()] == [3, 3, 3]
    assert second.experiments["audio"].model == first.experiments["audio"].model
    assert Path("a/config.json").read_text() == Path("b/config.json").read_text()


def test_the_directory_of_one_arm_is_not_taken_for_a_run(
    calls: list[Call], capsys: pytest.CaptureFixture[str]
) -> None:
    cli.script(["run", "mine.py", "--workdir", "a"])
    arm = Path("a/audio")
    arm.mkdir(exist_ok=True)
    (arm / "config.json").write_bytes(Path("a/config.json").read_bytes())
    error = refused(capsys, "run", "mine.py", "--from-run", "a/audio")
    assert "a/audio is an arm of a run; name the run, a." in error
    assert len(calls) == 1


def test_from_run_alone_uses_the_runs_copy_of_its_file(
    calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_experiment("epochs_and_double")
    cli.script(["run", "mine.py", "--set", "epochs=2", "--workdir", "a"])
    Path("mine.py").write_text("raise SystemError('the file has changed')")
    again = ["run", "--allow-code", "--from-run"]
    reads, read_stored_run = [], workdir.read_stored_run
    monkeypatch.setattr(
        workdir, "read_stored_run", lambda run: reads.append(run) or read_stored_run(run)
    )
    cli.script([*again, "a", "--set", "epochs=4", "--workdir", "b"])
    assert reads == [Path("a")], "between two reads it could change"
    assert [e.epochs for e in calls[1].experiments.values()] == [4, 8]
    assert Path("a/image").exists() is False and Path("b/double").exists()
    cli.script([*again, "b", "--workdir", "c"])
    assert [e.epochs for e in calls[2].experiments.values()] == [4, 8]
    for name in ("code.json", "experiment.py", "code/mine.py", "code/beside.py"):
        assert Path("a", name).read_text() == Path("c", name).read_text(), "copies of copies"


def test_the_runs_own_code_needs_leave(
    calls: list[Call], capsys: pytest.CaptureFixture[str]
) -> None:
    cli.script(["run", "mine.py", "--workdir", "a"])
    error = refused(capsys, "run", "--from-run", "a")
    assert "a uses Experiment, make_data of its experiment's own file" in error
    assert "If you trust the run: mmjax run --from-run a --allow-code." in error
    assert "Or name your own file: mmjax run FILE --from-run a." in error
    error = refused(capsys, "evaluate", "a")
    assert "If you trust the run: mmjax evaluate a --allow-code." in error
    assert "Or name your own file: mmjax evaluate a --experiment FILE." in error
    Path("other.py").write_text(FILE.replace("ARMS_HERE", "None"))
    cli.script(["run", "mine", "--workdir", "b"])
    assert "Or allow its module: --allow mine." in refused(capsys, "run", "--from-run", "b")
    Path("b/code/mine.py").write_text("raise SystemError('the copy is not run')")
    cli.script(["run", "--from-run", "b", "--allow", "mine"])
    assert list(calls[2].experiments) == ["all", "image", "audio"]


@pytest.mark.parametrize(
    ("place", "damage"),
    [
        ("config.json", {"root": {"type": "ref", "key": "nowhere"}, "objects": {}}),
        ("image/config.json", {"root": {"type": "ref"}, "objects": {}}),
        ("image/config.json", {"root": {"type": "pyref", "module": 1}, "objects": {}}),
    ],
)
def test_a_damaged_configuration_is_named_by_its_file(
    place: str, damage: Any, calls: list[Call], capsys: pytest.CaptureFixture[str]
) -> None:
    cli.script(["run", "mine.py", "--workdir", "a"])
    Path("a", place).write_text(json.dumps(damage))
    for argv in (["evaluate", "a", "--experiment", "mine.py"], ["run", "--from-run", "a"]):
        error = refused(capsys, *argv, "--allow-code")
        assert f"a/{place}" in error and "damaged" in error
    error = refused(capsys, "run", "mine.py", "--workdir", "a", "--resume")
    assert "error: a" in error and "damaged" in error


def test_a_module_of_another_needs_leave(
    calls: list[Call], capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--set", "data=beside:Data(3)"]
    cli.script(["run", "mine.py", *data, "--workdir", "a"])
    fresh = FILE.replace("ARMS_HERE", "single_modality").replace("data=make_data(size=4)", "data=3")
    Path("mine.py").write_text(fresh)
    allowed = ["run", "mine.py", "--from-run", "a", "--workdir", "b"]
    error = refused(capsys, *allowed)
    assert "module 'beside', which is not trusted" in error and "--allow beside" in error
    cli.script([*allowed, "--allow", "beside"])
    assert calls[1].experiments["all"].data.size == 3
    cli.script(["run", "mine.py", *data, "--resume", "--workdir", "a", "--allow-changes"])
    assert calls[2].resuming, "the same command needs no leave"


def test_arms_that_cannot_be_found_again(
    calls: list[Call], capsys: pytest.CaptureFixture[str]
) -> None:
    write_experiment("lambda config: {'one': config}")
    cli.script(["run", "mine.py", "--workdir", "a"])
    again = ["run", "--from-run", "a", "--allow-code"]
    assert "mmjax run FILE --from-run DIR" in refused(capsys, *again, "--set", "epochs=3")
    for command in (["run", "mine.py", "--from-run", "a", "--set", "epochs=3"], again):
        cli.script(command)
        assert list(calls[-1].experiments) == ["one"]


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_names_of_arms_must_do_as_directories(
    name: str, calls: list[Call], capsys: pytest.CaptureFixture[str]
) -> None:
    write_experiment(f"lambda config: {{{name!r}: config}}")
    assert "cannot be the name of a directory" in refused(capsys, "run", "mine.py")


def test_help_shows_the_experiments_own_paths(
    calls: list[Call], capsys: pytest.CaptureFixture[str]
) -> None:
    cli.script(["run", "mine.py", "--set", "epochs=7", "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("A stand-in experiment.\n")
    assert "--set PATH=VALUE" in shown and "--compilation-cache DIR" in shown
    rows = {tuple(line.split()) for line in shown.splitlines()}
    assert ("epochs", "int", "7") in rows
    assert ("data.size", "int", "4") in rows
    assert ("optimizer.learning_rate", "float", "|", "Callable", "0.001") in rows
    assert calls == [] and not Path("runs").exists()


def test_general_help(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--help"], ["run", "--help"], ["evaluate", "--help"]):
        try:
            cli.script(argv)
        except SystemExit as ended:
            assert ended.code == 0
        assert "usage: mmjax" in capsys.readouterr().out


def test_an_interrupted_run_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_arms, "run", train)
    settings = ["--set", "model.fusion=Gated(width=3)"]
    for more in ([], ["--resume", "--workdir", "w"], ["--workdir=w", "--resume"]):
        with pytest.raises(SystemExit) as ended:
            cli.script(["run", "mine.py", *more, *settings])
        assert ended.value.code == 130
        said = capsys.readouterr()
        directory = said.out.split("Work directory: ")[1].split("\n")[0]
        assert said.err.strip() == (
            "Interrupted. To continue: mmjax run mine.py --set 'model.fusion=Gated(width=3)' "
            f"--resume --workdir {directory}"
        )


@pytest.mark.parametrize(
    ("where", "error", "code"),
    [
        ("mmjax.train.loop", FloatingPointError, 1),
        ("mmjax.train.loop", MemoryError, 1),
        ("mmjax.train.checkpoint", OSError, 1),
        ("mmjax.data.pipeline", ValueError, 2),
        ("mmjax.data.pipeline", KeyError, None),
        ("somebody.elses", ValueError, None),
    ],
)
def test_bugs_keep_their_traceback(
    where: str,
    error: type[Exception],
    code: int | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scope = {"__name__": where, "error": error}
    exec("def train(*args, **kwargs): raise error('what happened')", scope)
    monkeypatch.setattr(run_arms, "run", scope["train"])
    with pytest.raises(error if code is None else SystemExit) as ended:
        cli.script(["run", "mine.py"])
    if code is not None:
        assert ended.value.code == code
        assert capsys.readouterr().err == "error: what happened\n"
        monkeypatch.setenv("MMJAX_TRACEBACK", "1")
        with pytest.raises(error):
            cli.script(["run", "mine.py"])


def test_a_full_disk_leaves_nothing_behind(
    calls: list[Call], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    error = refused(capsys, "run", "mine.py", "--workdir", "w")
    assert "cannot write w: No space left on device" in error
    assert not Path("w").exists() and not list(Path().glob(".w*"))


def test_the_cache_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmjax.cli.options import default_cache_directory

    monkeypatch.setenv("MMJAX_CACHE", "/a")
    assert default_cache_directory() == Path("/a/xla")
    monkeypatch.delenv("MMJAX_CACHE")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/jax")
    assert default_cache_directory() == Path("/jax")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert default_cache_directory() == Path("/b/mmjax/xla")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert default_cache_directory() == Path("/c/.cache/mmjax/xla")


TRAINED = """
import numpy as np, optax
from mmjax.config import auto_config
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.encoders import MLPEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Regression
from mmjax.model import Model
from mmjax.types import Batch


def line(size: int) -> Arrays:
    x = np.random.default_rng(0).normal(size=(size, 2)).astype(np.float32)
    yes = np.ones(size, bool)
    return Arrays(Batch({"m": x}, {"m": yes}, {}, {"t": x[:, 0]}, {"t": yes}))


def data() -> Dataset:
    splits = {name: line(16) for name in ("train", "validation", "test")}
    return Dataset("line", {"m": Modality((2,))}, {"t": Task("regression")}, splits)


@auto_config
def experiment() -> Experiment:
    model = Model(encoders={"m": MLPEncoder()}, fusion=Concat(), heads={"t": Regression()})
    return Experiment(
        data=data(), model=model, optimizer=optax.sgd(0.01), epochs=2, batch_size=8,
        eval_batch_size=16,
    )
"""


def test_evaluate_prints_the_results_of_the_run_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(request, "check_experiments", check_experiments)
    Path("mine.py").write_text(TRAINED)
    cli.script(["run", "mine.py", "--workdir", "w", "--devices", "1"])
    first = capsys.readouterr().out
    cli.script(["evaluate", "w", "--devices", "1", "--experiment", "mine.py"])
    named = capsys.readouterr().out
    cli.script(["evaluate", "w", "--devices", "1", "--allow-code"])
    again = capsys.readouterr().out
    assert named == again
    rows = [
        next(row.split() for row in text.split("Test split")[1].splitlines() if row[:4] == "all ")
        for text in (first, again)
    ]
    assert len(rows[1]) == 4 and rows[1] == rows[0][:4]
    result = json.loads(Path("w/summary.json").read_text())["all"]["seeds"]["0"]["test"]
    shown = [float(cell) for cell in rows[1][1:]]
    assert shown == pytest.approx([result[f"t/{m}"] for m in ("mae", "rmse", "r2")], abs=5.1e-4)
    newest = max(Path("w/all/checkpoints").iterdir(), key=lambda path: int(path.name))
    (newest / "_CHECKPOINT_METADATA").write_text("")
    before = {path: path.stat().st_mtime_ns for path in Path("w").rglob("*")}
    cli.script(["evaluate", "w", "--devices", "1", "--allow-code"])
    assert "is damaged" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in Path("w").rglob("*")}
    assert after == before, "a run that is only read is left as it is"
    with pytest.raises(SystemExit):
        cli.script(["run", "mine.py", "--workdir", "x", "--set", "model.heads.u=Regression()"])
    assert "The model has the head 'u'" in capsys.readouterr().err
    assert not Path("x").exists(), "what does not fit is refused before anything is written"


def test_programs_are_kept_between_starts() -> None:
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        set_compilation_cache(None)
        assert {name: getattr(jax.config, name) for name in names} == before
        set_compilation_cache(Path("there"))
        assert jax.config.jax_compilation_cache_dir == "there"
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.mark.slow
def test_the_file_itself_is_a_command(tmp_path: Path) -> None:
    source = str(Path(experiment_commands.__file__).parents[2])
    env = os.environ | {"PYTHONPATH": source, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "mine.py", "--set", "epochs=7"]
    helped = subprocess.run([*command, "--help"], env=env, capture_output=True, text=True)
    assert helped.returncode == 0, helped.stderr
    assert "epochs" in helped.stdout and "A stand-in experiment." in helped.stdout
    wrong = subprocess.run([*command, "--set", "x=1"], env=env, capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: --set x=1: no path 'x'.")
    assert not (tmp_path / "runs").exists()


def test_the_package_is_the_console_script(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mmjax", "data", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("mmjax", run_name="__main__")
    assert not ended.value.code and capsys.readouterr().out.startswith("usage: mmjax data ")


def test_warnings_are_one_clean_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    def action() -> None:
        warnings.simplefilter("always")
        for _ in range(2):
            warnings.warn("the split\n  is small", UserWarning, stacklevel=1)
            logging.getLogger("mmjax").warning("step %d is\x1b damaged", 8)

    before = warnings.showwarning
    with warnings.catch_warnings():
        assert run_and_report_errors(action) == 0
    assert (
        capsys.readouterr().err == "warning: the split is small\nwarning: step 8 is\\x1b damaged\n"
    )
    assert warnings.showwarning is before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500", 500),
        ("90s", timedelta(seconds=90)),
        ("10min", timedelta(minutes=10)),
        ("1.5h", timedelta(minutes=90)),
        ("0", None),
        ("0s", None),
        ("1.5", None),
        ("-3", None),
        ("10 parsecs", None),
        ("9" * 30 + "h", None),
        ("", None),
    ],
)
def test_checkpoints_are_due_after_steps_or_time(text: str, expected: Any) -> None:
    if expected is None:
        with pytest.raises(argparse.ArgumentTypeError):
            parse_steps_or_time(text)
    else:
        assert parse_steps_or_time(text) == expected


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_command_with_its_code(
    signum: int, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = [signal.getsignal(s) for s in SIGNALS]

    def action() -> None:
        os.kill(os.getpid(), signum)
        time.sleep(10)

    assert run_and_report_errors(action) == 128 + signum
    assert capsys.readouterr().err.strip() == "Interrupted."
    assert handlers == [signal.getsignal(s) for s in SIGNALS]


def test_an_ignored_hangup_stays_ignored() -> None:
    """As `nohup` has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_and_report_errors(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


TWO_ARMS = """
from mmjax.config import apply_setting

def ARMS(config):
    return {"whole": config, "other": apply_setting(config, "model.heads.u=Regression()")}
"""


def test_the_arm_that_does_not_fit_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(request, "check_experiments", check_experiments)
    Path("mine.py").write_text(TRAINED + TWO_ARMS)
    with pytest.raises(SystemExit):
        cli.script(["run", "mine.py", "--workdir", "x"])
    assert "error: arm other: The model has the head 'u'" in capsys.readouterr().err
    assert not Path("x").exists()
