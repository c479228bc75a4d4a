"""Atomic writes, checksums and locks: damage is always found, and never taken for content."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmjax import files

VALUE = {"seeds": {"0": {"accuracy": 0.1, "loss": float("inf")}}, "name": "ä", "steps": [1, 2]}
RECORDS = [{"step": 4, "train/loss": 0.25}, {"step": 8, "train/loss": -1e-30}, {"step": 8, "v": 1}]


def write_log(path: Path) -> bytes:
    for record in RECORDS:
        files.append_line(path, files.format_log_line(record))
    return path.read_bytes()


def flips(content: bytes):
    """The content with each of its bits flipped in turn."""
    for place in range(len(content)):
        for bit in range(8):
            yield content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


@pytest.mark.parametrize("value", [VALUE, [{"time": "now"}, {"time": "then"}], [], {}, 3])
def test_json_comes_back_with_and_without_a_checksum(tmp_path: Path, value) -> None:
    path = tmp_path / "value.json"
    for sealed in (True, False):
        files.write_json(path, value, sealed=sealed)
        assert files.read_json(path) == value
    assert json.loads(path.read_text()) == value, "without a checksum it is plain JSON"
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


@pytest.mark.parametrize("value", [VALUE, [{"time": "now"}, {"time": "then"}]])
def test_every_flipped_bit_of_json_is_found(tmp_path: Path, value) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, value)
    for content in flips(path.read_bytes()):
        path.write_bytes(content)
        try:
            assert files.read_json(path) == value, "blanks between values may change"
        except files.DamagedFileError as error:
            assert str(error).startswith(f"{path} is damaged: ")


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100_000, b"\xff\xfe", b'{"a": 1', b"9" * 5000, b"nul\0"]
)
def test_what_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(content)
    with pytest.raises(files.DamagedFileError, match=r"value\.json is damaged"):
        files.read_json(path)


def test_every_flipped_bit_of_a_log_is_found_in_its_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    whole = write_log(path)
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    for number, content in enumerate(flips(whole)):
        path.write_bytes(content)
        log, line = files.read_log(path), sum(end < number // 8 for end in ends)
        assert f"{path} line {line + 1}: " in log.damage[0][1]
        assert [r for r in RECORDS if r in log.records] == log.records
        assert len(log.records) >= len(RECORDS) - 2  # a lost line break joins two lines


def test_a_cut_off_log_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    whole = write_log(path)
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        log = files.read_log(path)
        assert log.damage == [] and log.records == RECORDS[: len(log.records)]
        assert len(log.records) >= whole[:length].count(b"\n")
    path.write_bytes(whole[:-9] + b"\0" * 9)  # but zeros at the end are
    log = files.read_log(path)
    assert log.records == RECORDS[:-1] and f"{path} line {len(RECORDS)}: " in log.damage[0][1]


def test_logs_without_checksums_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    assert files.read_log(path) == files.JsonLog(RECORDS, [])
    path.write_text('{"step": 4, "loss": "text"}\n[]\n{"loss": 1}\n{"step": 4}\n')
    log = files.read_log(path)
    assert log.records == [{"step": 4}] and len(log.damage) == 3


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, 1)
    with pytest.raises(TypeError):
        files.write_json(path, object())
    with pytest.raises(KeyError), files.replace_atomically(path) as draft:
        draft.write_text("half")
        raise KeyError
    assert files.read_json(path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/value\.json: Not a directory"):
        files.write_json(tmp_path / "file" / "value.json", 1)


def test_a_file_at_the_size_limit_is_named(tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; from mmjax import files\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "for _ in range(3): files.append_line(Path(sys.argv[1]), 'x' * 45)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "log")], capture_output=True, text=True
    )
    assert f"cannot read or write {tmp_path / 'log'}: File too large" in done.stderr


HOLDER = """
import sys, time
from pathlib import Path
from mmjax import files
with files.lock_directory(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_directory_is_one_process_s_until_it_ends(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        message = rf"{tmp_path} is in use by another process \(process {holder.pid} on .* since "
        with pytest.raises(files.LockedError, match=message), files.lock_directory(tmp_path):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    for _ in range(2):
        with files.lock_directory(tmp_path), files.lock_directory(tmp_path):
            assert files.read_json(tmp_path / files.LOCK_HOLDER_NAME)["pid"] == os.getpid()
    assert files.is_unused_directory(tmp_path)
