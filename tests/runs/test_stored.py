"""Runs that earlier code wrote still load, report, and run again.

`stored/run` and `stored/study` were written at commit e853fa2 from the file that is kept as
`stored/experiment.txt`, by

    mmjax run tiny.py --seeds 0 1 --workdir run --devices 1
    mmjax ablate tiny.py --workdir study --devices 1

Checkpoints, figures and copies of code are left out, and JSON is written without spaces.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import fiddle as fdl
import pytest

from mmjax import cli
from mmjax import config as configs
from mmjax.config import constructors, public_names
from mmjax.runs import workdir

HERE = Path(__file__).parent
OLD_NAMES = []
for _commit in ("e853fa2", "8200049"):
    OLD_NAMES += (HERE / f"constructor_names_{_commit}.txt").read_text().split()


@pytest.fixture(autouse=True)
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Copies the stored runs into a directory of the test's own, and works there."""
    shutil.copytree(HERE / "stored", tmp_path / "stored")
    monkeypatch.chdir(tmp_path / "stored")
    monkeypatch.setenv("MMJAX_CACHE", str(tmp_path / "cache"))
    yield


def test_every_old_name_is_found() -> None:
    assert len(OLD_NAMES) == 286 + 442
    for old in OLD_NAMES:
        constructor = constructors.find_constructor_by_name(*old.split(":"))
        assert constructor is not None, old
        assert constructors.is_constructor(constructor.value)


def test_the_teacher_is_found_by_its_old_module_if_that_is_allowed() -> None:
    with pytest.warns(DeprecationWarning, match=r"is now mmjax\.runs\.teacher"):
        from mmjax.train.teacher import trained
    text = configs.dump_config(fdl.Config(trained, "run", "all"))
    old = text.replace("mmjax.runs.teacher", "mmjax.train.teacher")
    assert old != text
    for allowed in ("mmjax.train.teacher", "mmjax.runs.teacher"):
        assert fdl.get_callable(configs.load_config(old, allow=[allowed])) is trained
    with pytest.raises(configs.ConfigError, match=r"--allow mmjax\.train\.teacher"):
        configs.load_config(old)


def test_renamed_balancers_are_loaded() -> None:
    texts = [workdir.read_stored_run(Path("run")).config]
    texts.append(Path("study/arms/balancer=random/config.json").read_text())
    names = [
        public_names.format_public_name(fdl.get_callable(configs.load_config(t).balancer))
        for t in texts
    ]
    assert names == ["conflict_free", "rlw"]


def test_show_prints_settings_and_results(capsys: pytest.CaptureFixture[str]) -> None:
    cli.script(["show", "run"])
    shown = capsys.readouterr().out
    assert "mmjax run tiny.py --seeds 0 1" in shown
    assert "conflict_free()" in shown and "all: finished" in shown
    assert "redundancy/accuracy   0.625   0.438" in shown


def test_compare_prints_current_names(capsys: pytest.CaptureFixture[str]) -> None:
    cli.script(["compare", "run", "study/arms/balancer=random"])
    assert "balancer  conflict_free()  rlw()" in capsys.readouterr().out


def test_report_is_written() -> None:
    cli.script(["report", "study"])
    report = Path("study/report.md").read_text()
    assert "config" in report and "random" in report


@pytest.mark.slow
def test_a_stored_run_runs_again_with_the_same_results() -> None:
    cli.script(["run", "--from-run", "run", "--workdir", "again", "--devices", "1"])
    old, new = (json.loads(Path(d, "all/result.json").read_text()) for d in ("run", "again"))
    for seed in ("0", "1"):
        assert new["seeds"][seed]["test"] == pytest.approx(old["seeds"][seed]["test"], rel=1e-5)
        assert new["seeds"][seed]["best_step"] == old["seeds"][seed]["best_step"]


def test_a_setting_may_use_an_old_name(capsys: pytest.CaptureFixture[str]) -> None:
    cli.script(["run", "--from-run", "run", "--set", "balancer=random()", "--help"])
    printed = capsys.readouterr()
    assert "warning: random is now rlw; please write that." in printed.err
    assert "rlw(...)" in printed.out
