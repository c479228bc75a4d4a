"""Logs: every number comes back, and a resumed run's log is that of an uninterrupted one."""

import math
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmjax.files import read_log
from mmjax.train.reporting.metric_writers import (
    combine_writers,
    open_jsonl_writer,
    open_tensorboard_writer,
)


def records(path):
    log = read_log(path)
    assert not log.damage
    return log.records


def same_bits(one, other):
    return struct.pack("<d", one) == struct.pack("<d", other) or (one != one and other != other)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda s: s not in ("step", "crc32")
)


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rows=st.lists(st.dictionaries(NAMES, st.floats(), max_size=4), max_size=4))
def test_numbers_and_names_come_back_as_they_were(tmp_path, rows):
    """Any float64 (also NaN, infinite, subnormal) under any name, also one with line breaks."""
    write = open_jsonl_writer(tmp_path / "log.jsonl")
    for step, row in enumerate(rows, 1):
        write(step, row)
    found = records(tmp_path / "log.jsonl") if rows else []
    assert len(found) == len(rows)
    for step, (record, row) in enumerate(zip(found, rows, strict=True), 1):
        assert record.pop("step") == step
        assert record.keys() == row.keys()
        assert all(same_bits(record[name], row[name]) for name in row)


def test_a_float32_comes_back_exactly(tmp_path):
    values = np.random.default_rng(0).normal(size=100).astype(np.float32)
    open_jsonl_writer(tmp_path / "log.jsonl")(1, {str(i): float(x) for i, x in enumerate(values)})
    (record,) = records(tmp_path / "log.jsonl")
    found = np.array([record[str(i)] for i in range(100)], np.float32)
    assert found.tobytes() == values.tobytes()


def test_a_new_run_begins_an_empty_log(tmp_path):
    path = tmp_path / "log.jsonl"
    open_jsonl_writer(path)(1, {"a": 1.0})
    open_jsonl_writer(path)(2, {"a": 2.0})
    assert records(path) == [{"step": 2, "a": 2.0}]


def written(path, steps):
    """A log with two lines per step: of training and of validation."""
    write = open_jsonl_writer(path)
    for step in steps:
        write(step, {"train/loss": 1 / step})
        write(step, {"validation/loss": 2 / step})
    return path.read_bytes()


@pytest.mark.parametrize("lost", range(0, 120, 7))
def test_resuming_drops_what_lies_behind_and_goes_on_to_the_same_bytes(tmp_path, lost):
    """Killed anywhere: the log may end in the middle of a line, of a number, of nothing."""
    whole = written(tmp_path / "whole.jsonl", [4, 8, 12])
    path = tmp_path / "killed.jsonl"
    written(path, [4, 8, 12])
    behind = len(written(tmp_path / "kept.jsonl", [4]))
    path.write_bytes(whole[: max(len(whole) - lost, behind)])
    write = open_jsonl_writer(path, resume_at=4)
    assert path.read_bytes() == whole[:behind]
    for step in (8, 12):
        write(step, {"train/loss": 1 / step})
        write(step, {"validation/loss": 2 / step})
    assert path.read_bytes() == whole


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_that_was_cut_off_is_no_line(tmp_path, cut):
    """Even if its step is not behind the one resumed at."""
    path = tmp_path / "log.jsonl"
    kept = written(path, [4])
    with path.open("a") as file:
        file.write('{"step": 4, "a": 1.5}\n'[: -cut - 1])
    open_jsonl_writer(path, resume_at=4)
    assert path.read_bytes() == kept


def events(directory):
    """{name: [(step, value)]} of all event files, by the format's definition.

    A record is its length (uint64), a checksum of that, the event, and a checksum of that.
    """
    from tensorboardX.proto.event_pb2 import Event

    found, purged = {}, []
    for path in sorted(directory.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            content = content[12 + length + 4 :]
            if event.session_log.status:
                purged.append(event.step)
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found, purged


def test_tensorboard_files_hold_the_scalars(tmp_path):
    write = open_tensorboard_writer(tmp_path)
    write(4, {"train/loss": 0.1, "train/gradient_norm": 3.0})
    write(8, {"train/loss": 1e-30})
    found, purged = events(tmp_path)
    assert found.keys() == {"train/loss", "train/gradient_norm"}
    assert found["train/loss"] == [(4, pytest.approx(0.1)), (8, pytest.approx(1e-30, rel=1e-6))]
    assert found["train/gradient_norm"] == [(4, 3.0)]
    assert purged == []


def test_tensorboard_is_told_from_where_a_resumed_run_goes_on(tmp_path):
    """A reader drops the steps from the purge on; what was logged at the checkpoint stays."""
    open_tensorboard_writer(tmp_path)(8, {"train/loss": 1.0})
    open_tensorboard_writer(tmp_path, resume_at=4)(8, {"train/loss": 1.0})
    _, purged = events(tmp_path)
    assert purged == [5]


def test_tensorboard_needs_no_tensorflow(tmp_path):
    """Nor PyTorch, which tensorboardX would import where it is installed, and others still can."""
    program = (
        "import sys; from pathlib import Path; "
        "from mmjax.train.reporting.metric_writers import open_tensorboard_writer; "
        f"open_tensorboard_writer(Path({str(tmp_path)!r}))(1, {{'a': 1.0}}); "
        "print([m for m in ('tensorflow', 'tensorboard', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert events(tmp_path)[0] == {"a": [(1, 1.0)]}


def test_tee_writes_to_all(tmp_path):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    combine_writers(*(open_jsonl_writer(p) for p in paths))(3, {"x": math.pi})
    assert [records(p) for p in paths] == [[{"step": 3, "x": math.pi}]] * 2
