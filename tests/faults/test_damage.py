"""Tests of a few cases of the campaign of damaged files, `experiments/faults/damage.py`."""

import importlib.util
import random
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location(
    "damage_campaign", Path(__file__).parents[2] / "experiments" / "faults" / "damage.py"
)
damage = importlib.util.module_from_spec(spec)
spec.loader.exec_module(damage)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_no_damage_ends_in_a_traceback_or_a_silent_wrong_result(tmp_path):
    damage.prepare(tmp_path)
    results = damage.campaign(tmp_path, 60, seed=1)
    assert {verdict for _, verdict, _ in results} <= {"same", "named", "as killed", "old style"}


def test_the_campaign_detects_bad_outcomes(tmp_path):
    case = damage.Case("show", "finished", "all/result.json", "flip", True)
    fine = damage.Outcome(0, "accuracy 0.5", "")
    assert damage.judge(case, fine, fine) == "same"
    assert damage.judge(case, damage.Outcome(0, "accuracy 0.6", ""), fine) == "SILENT"
    assert damage.judge(case, damage.Outcome(2, "", "error: it failed"), fine) == "UNNAMED"
    assert damage.judge(case, damage.Outcome(2, "", "error: result.json is"), fine) == "named"
    assert damage.judge(case, fine._replace(traceback="Traceback"), fine) == "TRACEBACK"
    path = tmp_path / "value.json"
    for seed in range(50):
        path.write_text('{"a": [1, {"b": 2}], "c": "text"}')
        before = path.read_bytes()
        damage.damage(path, random.Random(seed))
        assert path.read_bytes() != before
