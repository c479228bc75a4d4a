"""`results.parquet` is made of what is new and of what the file already holds."""

import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest

from experiments.faults.many_results import SEEDS, make_arms, write_arm
from mmjax import files
from mmjax.study.results import CHECKSUM_FILE, RESULTS_FILE, load
from mmjax.study.write_results import ThrottledWriter, write_results

AXES = ("model.fusion", "balancer", "optimizer.learning_rate")


def write(directory, arms):
    write_results(directory, arms, AXES)
    return load(directory)


def test_only_new_and_changed_results_are_read_again(tmp_path):
    arms = make_arms(3)
    first, second, third = arms
    for number, name in enumerate((first, third)):
        write_arm(tmp_path / "arms" / name, np.random.default_rng(number))
    before = write(tmp_path, arms)
    assert list(dict.fromkeys(before.arm)) == [first, third]
    assert before.groupby("arm").seed.nunique().tolist() == [len(SEEDS)] * 2
    for log in (tmp_path / "arms" / first).glob("metrics-*.jsonl"):
        log.unlink()  # so that reading the arm again would lose rows
    write_arm(tmp_path / "arms" / second, np.random.default_rng(5))
    after = write(tmp_path, arms)
    assert list(dict.fromkeys(after.arm)) == [first, second, third]  # the study's order
    kept = after[after.arm != second].reset_index(drop=True)
    assert kept.equals(before)
    assert set(after[after.arm == second][AXES[0]]) == {arms[second][AXES[0]]}
    result = tmp_path / "arms" / first / "result.json"
    files.write_json(result, files.read_json(result) | {"again": 1})
    again = write(tmp_path, arms)
    assert set(again[again.arm == first].split) == {"test", "cost"}


def test_a_damaged_file_is_made_again_from_the_arms(tmp_path):
    arms = make_arms(2)
    for number, name in enumerate(arms):
        write_arm(tmp_path / "arms" / name, np.random.default_rng(number))
    whole = write(tmp_path, arms)
    path = tmp_path / RESULTS_FILE
    path.write_bytes(path.read_bytes()[:-100])
    assert write(tmp_path, arms).equals(whole)


def test_a_file_with_other_columns_or_row_groups_is_made_again(tmp_path):
    arms = make_arms(2)
    for number, name in enumerate(arms):
        write_arm(tmp_path / "arms" / name, np.random.default_rng(number))
    whole = write(tmp_path, arms)
    write_results(tmp_path, arms, AXES[:2])
    assert AXES[2] not in load(tmp_path).columns
    assert write(tmp_path, arms).equals(whole)
    path = tmp_path / RESULTS_FILE  # earlier versions wrote all arms as one row group
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path), path)
    files.write_text(tmp_path / CHECKSUM_FILE, files.compute_sha256(path))
    assert write(tmp_path, arms).equals(whole)


def test_memory_does_not_grow_with_the_arms(tmp_path):
    arms = make_arms(40)
    for number, name in enumerate(arms):
        write_arm(tmp_path / "arms" / name, np.random.default_rng(number))
    program = f"""
from pathlib import Path
import pyarrow
from experiments.faults.many_results import AXES, make_arms
from mmjax.study.write_results import write_results
for count in (4, 40, 40):  # the last time from the file
    write_results(Path({str(tmp_path)!r}), dict(list(make_arms(40).items())[:count]), AXES)
    print(pyarrow.default_memory_pool().max_memory())
"""
    # A process of its own, since the pool's peak is that since the start.
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    few, many, again = map(int, done.stdout.split())
    assert max(many, again) < 2 * few  # all arms at once need ten times as much


def test_writing_takes_a_twentieth_of_the_time(monkeypatch):
    now, writes = [0.0], []

    def write():
        writes.append(now[0])
        now[0] += 2.0

    monkeypatch.setattr("mmjax.study.write_results.time.monotonic", lambda: now[0])
    writer = ThrottledWriter(write)
    while now[0] < 200:
        writer.write_if_due()
        now[0] += 1.0
    spent = 2.0 * len(writes)
    assert spent / now[0] == pytest.approx(1 / 20, rel=0.1)
