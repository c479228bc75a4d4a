"""Tests of what is read from compiled programs and of estimates, on invented and compiled ones."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from scale import cases, chips, hlo, programs, table

# Three iterations: each reads a slice of 4 of x, updates one row of y in place, and sums over
# devices; y is 10 rows, of which the fusion writes one. The array in S(1) is not in HBM.
PROGRAM = """HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused (p: f32[10,4], q: f32[4], i: s32[]) -> f32[10,4] {
  %p = f32[10,4]{1,0:T(8,128)} parameter(0)
  %q = f32[4]{0} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  %row = f32[1,4]{1,0} bitcast(%q)
  ROOT %new = f32[10,4]{1,0} dynamic-update-slice(%p, %row, %i, %zero)
}

%condition (s: (s32[], f32[40], f32[10,4])) -> pred[] {
  %s = (s32[], f32[40]{0}, f32[10,4]{1,0}) parameter(0)
  %limit = s32[]{:T(128)} constant(3)
  %i = s32[] get-tuple-element(%s), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%body (s: (s32[], f32[40], f32[10,4])) -> (s32[], f32[40], f32[10,4]) {
  %s = (s32[], f32[40]{0}, f32[10,4]{1,0}) parameter(0)
  %i = s32[]{:T(128)S(1)} get-tuple-element(%s), index=0
  %x = f32[40]{0} get-tuple-element(%s), index=1
  %y = f32[10,4]{1,0} get-tuple-element(%s), index=2
  %part = f32[4]{0} dynamic-slice(%x, %i), dynamic_slice_sizes={4}
  %total = f32[4]{0:T(128)S(1)} all-reduce(%part), channel_id=1, to_apply=%add
  %new = f32[10,4]{1,0} fusion(%y, %total, %i), kind=kLoop, calls=%fused
  ROOT %next = (s32[], f32[40]{0}, f32[10,4]{1,0}) tuple(%i, %x, %new)
}

ENTRY %main (x: f32[40], y: f32[10,4]) -> (s32[], f32[40], f32[10,4]) {
  %x = f32[40]{0} parameter(0)
  %y = f32[10,4]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %start = (s32[], f32[40]{0}, f32[10,4]{1,0}) tuple(%zero, %x, %y)
  ROOT %loop = (s32[], f32[40], f32[10,4]) while(%start), condition=%condition, body=%body
}
"""


def test_a_loop_counts_as_often_as_its_condition_says():
    traffic = hlo.measure_traffic(PROGRAM)
    assert traffic.counts == {"all-reduce": 3}
    assert traffic.collectives == {"all-reduce": 3 * 16}
    # Per iteration: the slice is read and written, the sum reads it, the fusion writes a row.
    assert traffic.memory == 3 * (2 * 16 + 16 + 16)


def test_asynchronous_collectives_and_loops_of_gpus():
    """The whole array counts, in the result of an all-gather, or the operand of its reverse."""
    program = """HloModule jit_step

%body (s: (s32[], f32[2])) -> (s32[], f32[2]) {
  %s = (s32[], f32[2]{0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = f32[2]{0} get-tuple-element(%s), index=1
  %gathering = (f32[2]{0}, f32[16]{0}) all-gather-start(%x), channel_id=1, dimensions={0}
  %gathered = f32[16]{0} all-gather-done(%gathering)
  %scattering = ((f32[16]{0}), f32[2]{0}) reduce-scatter-start(%gathered), channel_id=2
  %scattered = f32[2]{0} reduce-scatter-done(%scattering)
  %call = (f32[2]{0}, s8[4194304]{0}) custom-call(%scattered), custom_call_target="product"
  ROOT %next = (s32[], f32[2]{0}) tuple(%i, %scattered)
}

%less (s: (s32[], f32[2])) -> pred[] {
  %s = (s32[], f32[2]{0}) parameter(0)
  ROOT %fused = pred[] fusion(%s), kind=kLoop, calls=%unknown
}

ENTRY %main (x: f32[2]) -> (s32[], f32[2]) {
  %x = f32[2]{0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[2]{0}) tuple(%zero, %x)
  ROOT %loop = (s32[], f32[2]) while(%start), condition=%less, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
}
"""
    traffic = hlo.measure_traffic(program)
    assert traffic.counts == {"all-gather": 5, "reduce-scatter": 5}
    assert traffic.collectives == {"all-gather": 5 * 64, "reduce-scatter": 5 * 64}
    # Each collective reads and writes its arrays; so does the product, whose workspace is none.
    assert traffic.memory == 5 * (2 * (8 + 64) + 2 * 8)


@pytest.mark.parametrize(
    ("kind", "size"),
    [("f32[2,3]{1,0:T(8,128)}", 24), ("(bf16[4], pred[], s4[8])", 17), ("f8e4m3fn[5]", 5)],
)
def test_bytes_of_types(kind, size):
    assert hlo.count_bytes(kind) == size


def test_seconds_of_an_all_reduce_over_a_ring():
    """Twice (n - 1) / n of the bytes over the links, and a microsecond per hop, there and back."""
    ring = chips.parse_slice("v5e:16x1")
    seconds = chips.estimate_collective_seconds(ring, "all-reduce", 16e9, 3)
    assert seconds == pytest.approx(2 * 15e9 / 100e9 + 2 * 3 * 8e-6)
    line = chips.parse_slice("v5e:4x1")  # without wraparound: one link, and three hops
    seconds = chips.estimate_collective_seconds(line, "all-gather", 4e9, 1)
    assert seconds == pytest.approx(3e9 / 50e9 + 3e-6)
    one = chips.parse_slice("v5e:1x1")
    assert chips.estimate_collective_seconds(one, "all-reduce", 1e9, 1) == 0


def test_seconds_of_collectives_among_gpus():
    """A ring of the nodes, 400 GB/s out of each, or of a node's GPUs, 450 GB/s out of each."""
    node = chips.parse_slice("h100:1x8")
    seconds = chips.estimate_collective_seconds(node, "all-gather", 8e9, 1)
    assert seconds == pytest.approx(7e9 / 450e9 + 1e-6)
    nodes = chips.parse_slice("h100:4x8")  # through a leaf, the spine and a leaf
    seconds = chips.estimate_collective_seconds(nodes, "all-reduce", 8e9, 1)
    assert seconds == pytest.approx(2 * (7e9 / 450e9 + 3e-6))  # 6e9 / 400e9 is less
    many = chips.parse_slice("h100:32x8")
    seconds = chips.estimate_collective_seconds(many, "all-gather", 32e9, 0)
    assert seconds == pytest.approx(31e9 / 400e9)
    assert chips.estimate_collective_seconds(chips.parse_slice("h100:1x1"), "all-gather", 1, 1) == 0


@pytest.mark.parametrize("name", ["v9:2x4", "v5e", "v5e:2xa", "h100:8"])
def test_an_unknown_slice_is_refused(name):
    with pytest.raises(ValueError, match="is not a slice"):
        chips.parse_slice(name)


def test_a_step_takes_at_least_its_slowest_part_and_at_most_that_and_its_collectives():
    row = {
        "case": "it",
        "slice": "v5e:16x1",
        "chips": 16,
        "memory": {"arguments": 4e9, "temporaries": 3e9, "results": 1e9, "code": 0},
        "flops": 197e12,
        "hbm_bytes": 819e9 / 2,
        "collective_bytes": {"all-gather": 16e9},
        "collectives": {"all-gather": 0},
    }
    seconds = programs.estimate_seconds(row, chips.parse_slice("v5e:16x1"))
    assert seconds["least"] == pytest.approx(1.0)
    assert seconds["most"] == pytest.approx(1.15)
    line = table.format_rows([row]).splitlines()[-1]
    assert "| 8.00 | 50% |" in line
    assert line.endswith("| 1e+03 | 500 | 150 | 1e+03 to 1.15e+03 | 87% to 100% |")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "compiler"), [("v5e:2x4", "libtpu"), ("h100:1x8", "jax_cuda12_plugin")]
)
def test_the_main_job_compiles_for_eight_chips(name, compiler, tmp_path):
    if not importlib.util.find_spec(compiler):
        pytest.skip(f"needs {compiler} (extra pods)")
    script = Path(__file__).parents[2] / "experiments" / "benchmarks" / "pods.py"
    options = ["--cases", "main job, equal", "--slices", name, "--json", tmp_path / "rows"]
    subprocess.run([sys.executable, script, *options], check=True, timeout=900)
    (row,) = json.loads((tmp_path / "rows").read_text())
    state = programs.make_state_shapes(*cases.make_main_job())
    params = 4 * sum(x.size for x in jax.tree.leaves(state.params))
    # One sum of the labels' counts; one of the gradients and the losses.
    assert row["collectives"] == {"all-reduce": 2}
    assert params < row["collective_bytes"]["all-reduce"] < params + 256
    assert 3 * params < row["memory"]["arguments"] < 16e9  # Adam's moments, and the data
    assert row["hbm_bytes"] > params  # unless the parameters are in fast memory, read and written
    assert row["chips"] == 8
