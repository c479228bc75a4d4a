"""Opening somebody's run writes nothing and runs nothing, whatever the run holds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmjax


@pytest.mark.slow
def test_opening_a_hostile_run_does_nothing(tmp_path: Path) -> None:
    """More than 150 attacks, each opened in seven ways under an audit hook."""
    script = Path(__file__).with_name("open_runs.py")
    environment = os.environ | {
        "PYTHONPATH": str(Path(mmjax.__file__).parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "JAX_PLATFORMS": "cpu",
        "HOME": str(tmp_path / "home"),
        "TFDS_DATA_DIR": str(tmp_path / "tfds"),
    }
    root = tmp_path / "root"
    root.mkdir()
    command = [sys.executable, str(script), str(root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["written"] == [] and not (tmp_path / "tfds").exists()
    assert len(found["results"]) > 1000
    refused = 0
    for result in found["results"]:
        what = f"{result['argv']}: {result['code']} {result['error'][-1000:]}"
        assert result["events"] == [], what
        assert result["code"] in (0, 1, 2), what
        if result["code"]:
            refused += 1
            assert result["error"].startswith("error: ") and result["error"].count("\n") == 1, what
    assert refused > 600
    innocent = [r["code"] for r in found["results"] if r["argv"][-1].endswith("/innocent")]
    assert innocent == [0, 0], "show and compare work for a run that does no harm"
