"""`record`: what made a run."""

import json
import platform
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest

from mmjax import provenance
from mmjax.loaded_code import iterate_own_modules


def test_record_is_json_and_names_what_decides_a_result() -> None:
    record = json.loads(json.dumps(provenance.make_record("python x.py --set epochs=1")))
    assert record["command"] == "python x.py --set epochs=1"
    assert record["versions"]["jax"] == jax.__version__
    assert record["versions"]["python"] == platform.python_version()
    assert sum(record["devices"]["kinds"].values()) == jax.device_count()
    assert record["devices"]["backend"] == jax.default_backend()
    assert record["git"] is None


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    source = tmp_path / "x.py"
    source.write_text("1\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    commands = (["init", "-q"], ["add", "x.py"], [*identity, "commit", "-q", "-m", "one"])
    for command in commands:
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return source


def test_git_revision_and_changes(repository: Path) -> None:
    found = provenance.make_record("", git=provenance.read_git_state(repository))["git"]
    head = (repository.parent / ".git" / "HEAD").read_text().split()[-1]
    assert found["revision"] == (repository.parent / ".git" / head).read_text().strip()
    assert found["dirty"] is False
    (repository.parent / "results.txt").write_text("an untracked file changes no code")
    assert provenance.read_git_state(repository) == found
    repository.write_text("2\n")
    assert provenance.read_git_state(repository) == found | {"dirty": True}


def test_no_repository_is_no_error(tmp_path: Path) -> None:
    assert provenance.read_git_state(None) is None
    assert provenance.read_git_state(tmp_path / "x.py") is None
    assert provenance.read_git_state(tmp_path / "nowhere" / "x.py") is None


def test_no_git_is_no_error(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.read_git_state(repository) is None


def test_modules_that_name_files_that_do_not_exist_are_no_code_of_ones_own(monkeypatch):
    """As `torch.classes` does, whose file is "_classes.py"."""
    odd = types.ModuleType("odd_module")
    odd.__file__ = "_odd_module.py"
    monkeypatch.setitem(sys.modules, "odd_module", odd)
    assert "odd_module" not in dict(iterate_own_modules())
