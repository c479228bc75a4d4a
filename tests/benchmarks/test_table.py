"""Tests of ratios, samples and tables, on invented times."""

import pytest
from versus import roofline, table, timing
from versus.case import BATCH_COUNT


def step_row(**changes):
    row = {
        "kind": "step",
        "case": "a model",
        "threads": 1,
        "bound": False,
        "single_ms": 2.0,
        "scanned_ms": 1.0,
        "scanned_over_single": 0.5,
        "flops": 3_000_000,
        "bytes": 4_000_000.0,
        "share_of_rate": 0.25,
        "share_of_bandwidth": 0.5,
        "compiled_mb": 7.0,
    }
    return row | changes


def roof_row(*, torch):
    named = {"kind": "roof", "device": "cpu", "platform": "cpu", "threads": 1, "torch": torch}
    return named | {"flops": 5e10, "bytes": 1e10}


def test_a_ratio_is_the_median_of_the_rounds_ratios_not_the_ratio_of_medians():
    # Rounds of 2, 3 and 10 times; one round was slow on both sides.
    assert timing.compute_median_ratio([2.0, 300.0, 10.0], [1.0, 100.0, 1.0]) == 3.0


def test_sides_take_turns_and_every_sample_lasts_long_enough(monkeypatch):
    clock, asked = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def side(name, seconds):
        def run(steps):
            asked.append((name, steps))
            clock[0] += seconds * steps

        return run

    found = timing.time_in_turns({"fast": side("fast", 1e-4), "slow": side("slow", 1e-2)}, rounds=3)
    assert found["fast"] == pytest.approx([1e-4] * 3)
    assert found["slow"] == pytest.approx([1e-2] * 3)
    last = asked[-6:]
    assert [name for name, _ in last] == ["fast", "slow"] * 3
    assert all(steps % BATCH_COUNT == 0 for _, steps in asked)
    seconds = {"fast": 1e-4, "slow": 1e-2}
    assert all(steps * seconds[name] >= timing.MIN_SAMPLE_SECONDS for name, steps in last)


def test_the_share_of_the_roof():
    assert roofline.compute_share(roofline.Roof(100.0, 10.0), 50.0, 2.0, 2.0) == (0.25, 0.1)


def test_a_row_of_both_sides():
    row = step_row(torch_ms=3.0, torch_over_single=1.5, torch_over_scanned=3.0)
    text = table.format_tables([roof_row(torch=True), row])
    expected = "| a model | 1 | 2.00 | 1.00 | 3.00 | 1.50 | 3.00 | 0.50 | 3.0 | 4.0 | 25% | 50% |"
    assert expected in text
    assert table.NO_TORCH not in text
    assert table.BOUND not in text


def test_a_lower_bound_is_marked():
    row = step_row(torch_ms=3.0, torch_over_single=1.5, torch_over_scanned=3.0, bound=True)
    text = table.format_tables([roof_row(torch=True), row])
    assert "| ≥ 1.50 | ≥ 3.00 |" in text
    assert table.BOUND in text


def test_without_pytorch_its_columns_are_empty_and_a_line_says_what_to_install():
    text = table.format_tables([roof_row(torch=False), step_row()])
    assert "| a model | 1 | 2.00 | 1.00 |  |  |  | 0.50 |" in text
    assert table.NO_TORCH in text


def test_memory_has_a_table_where_it_was_measured():
    memory = {
        "mmjax": {"whole_mb": 300.0, "steps_mb": 150.0},
        "torch": {"whole_mb": 110.0, "steps_mb": 100.0},
    }
    text = table.format_tables([roof_row(torch=True), step_row(memory=memory)])
    assert "| a model | 7.0 | 300 | 110 | 150 | 100 | 1.50 |" in text


def test_the_other_kinds_and_failures():
    common = {"case": "it", "threads": 2}
    text = table.format_tables(
        [
            common | {"kind": "epoch", "data": "noise", "mmjax_s": 2.0},
            common | {"kind": "seeds", "one_ms": 1.0, "five_ms": 4.0, "five_over_one": 4.0},
            common | {"kind": "start", "cold_s": 9.0, "warm_s": 3.0},
            common | {"kind": "failed", "error": "ValueError: no\nmore"},
        ]
    )
    for line in (
        "| it | 2 | noise | 2.00 |  |  |",
        "| it | 2 | 1.00 | 4.00 | 4.00 |",
        "| it | 2 | 9.00 | 3.00 |",
        "| it | 2 | ValueError: no |",
    ):
        assert line in text
