"""A study of many arms does not keep their programs."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "experiments" / "faults" / "many_arms.py"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_memory_maps_and_memory_stay_flat_over_many_arms(tmp_path, monkeypatch):
    """A program that is kept costs 180 maps and several MB even for so tiny a model."""
    monkeypatch.setenv("PYTHONPATH", str(FILE.parents[2]))
    spec = importlib.util.spec_from_file_location("many_arms", FILE)
    many_arms = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(many_arms)
    code, samples = many_arms.run_study(tmp_path, 24)
    assert code == 0, (tmp_path / "output.txt").read_text()[-3000:]
    first, last = next(s for s in samples if s.arms >= 8), samples[-1]
    arms = last.arms - first.arms
    assert arms >= 10
    assert (last.maps - first.maps) / arms < 20
    assert (last.resident - first.resident) / arms < 3
