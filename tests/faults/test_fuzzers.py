"""Tests of a few dozen cases of each fuzzer of `experiments/faults`; the fuzzers can fail."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "faults"


@pytest.mark.slow
def test_no_case_fails():
    """Runs in a process of its own, without the type checks that the tests enable."""
    code = """
import sys
import arrays, settings, stored_configs, tables
fuzzers = (arrays, settings, stored_configs, tables)
sys.exit(max(fuzzer.main(["--cases", "40", "--seed", "1"]) for fuzzer in fuzzers))
"""
    paths = [str(FOLDER), str(FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| failures | 0 |") == 4


def test_a_watch_counts_forbidden_effects(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    from watch import Watch

    watch = Watch((FOLDER,))
    with watch.case("fine", (ValueError,)):
        pass
    with watch.case("refused", (ValueError,)):
        raise ValueError("one line")
    assert watch.report("good") == 0
    with watch.case("two lines", (ValueError,)):
        raise ValueError("one\ntwo")
    with watch.case("another", (ValueError,)):
        raise KeyError("x")
    with watch.case("writes", (ValueError,)):
        (tmp_path / "written").write_text("x")
    (tmp_path / "foreign_of_the_test.py").write_text("x = 1\n")
    with watch.case("runs", (ValueError,)):
        exec(compile("x = 1", str(tmp_path / "foreign_of_the_test.py"), "exec"))
    with watch.case("calls", (ValueError, OSError)), socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
    assert watch.outcomes == {
        "accepted": 4,
        "refused": 1,
        "refused in several lines": 1,
        "traceback": 1,
    }
    assert watch.effects == {"file written": 1, "code executed": 1, "socket.bind": 1}
    assert watch.report("bad") == 1
    assert "| failures | 5 |" in capsys.readouterr().out
