"""Tables that are larger than memory: the same data set as from memory, in parts, once."""

import csv
import os
import pickle
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image as PillowImage

from mmjax.data import (
    Boolean,
    Category,
    DateTime,
    DepthMap,
    Dialect,
    Image,
    Label,
    Mask,
    Numbers,
    Split,
    Streaming,
    Text,
    Value,
    from_table,
)
from mmjax.data.fingerprint import compute_fingerprint
from mmjax.data.load.stored import encode, encode_table, survey, table_parts
from mmjax.data.load.stored.parallel_jobs import Job, JobFolder
from mmjax.data.workers import WorkerKilledError

ROWS = 50  # per file
FEW = {"weight": "weight", "bytes": Text("note")}
INPUTS = {
    "body": Numbers(("height", "weight")),
    "age": Numbers("age", fill="median"),
    "pet": Category("pet"),
    "words": Text("note", level="word"),
    "bytes": Text("note", longest=20),
    "when": DateTime("when"),
    "paid": Boolean(("paid", "member")),
    "plain": "age",
}
TARGETS = {"mood": "mood", "price": "price"}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Makes several parts, tables and blocks of few rows."""
    monkeypatch.setattr(table_parts, "_PART_ROWS", 24)
    monkeypatch.setattr(survey, "_TABLE_ROWS", 13)
    monkeypatch.setattr(encode, "_TABLE_ROWS", 7)
    monkeypatch.setattr(encode, "_BLOCK_BYTES", 2000)


def make_columns(seed, rows=ROWS):
    rng = np.random.default_rng(seed)
    words = ["red", "blue", "a\nnew line", 'a "quote"', "käse, brot"]
    return {
        "height": [None if rng.random() < 0.2 else float(x) for x in rng.normal(170, 9, rows)],
        "weight": [float(x) for x in 1e5 + rng.normal(70, 9, rows)],
        "age": [None if rng.random() < 0.1 else int(x) for x in rng.integers(1, 99, rows)],
        "pet": [["cat", "dog", "owl", None][i] for i in rng.integers(0, 4, rows)],
        "note": [" ".join(rng.choice(words, rng.integers(1, 6))) for _ in range(rows)],
        "when": [f"2024-0{rng.integers(1, 9)}-1{rng.integers(0, 9)}" for _ in range(rows)],
        "paid": [["true", "false"][i] for i in rng.integers(0, 2, rows)],
        "member": [["true", None][i] for i in rng.integers(0, 2, rows)],
        "mood": [["bad", "good"][i] for i in rng.integers(0, 2, rows)],
        "price": [None if rng.random() < 0.1 else float(x) for x in rng.normal(5, 2, rows)],
        "trust": [float(x) for x in rng.uniform(1, 2, rows)],
        "part": [["train", "test"][i] for i in (rng.random(rows) < 0.2).astype(int)],
    }


def write_csv(path, columns, separator=",", decimal="."):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            cells = [str(c).replace(".", decimal) if isinstance(c, float) else c for c in row]
            writer.writerow(cells)


def write_parquet(path, columns):
    pyarrow = pytest.importorskip("pyarrow")
    pyarrow.parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=20)


def write_folder(folder, write, ending, files=3):
    folder.mkdir()
    for i in range(files):
        write(folder / f"part-{i}{ending}", make_columns(seed=i))
    return folder


def assert_same(expected, streamed):
    """Compares all examples in a random order; statistics may differ by rounding in float64."""
    assert streamed.modalities == expected.modalities
    assert streamed.tasks == expected.tasks
    assert list(streamed.splits) == list(expected.splits)
    for split, source in expected.splits.items():
        order = np.random.default_rng(0).permutation(len(source))
        a, b = source.take(order), streamed.splits[split].take(order)
        assert jax.tree.structure(a) == jax.tree.structure(b)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            assert (x.dtype, x.shape) == (y.dtype, y.shape)
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-9)
            if x.dtype != np.float32:
                np.testing.assert_array_equal(x, y)
    for m, preparation in expected.preparations.items():
        other = streamed.preparations[m]
        assert (other.kind, other.dtype) == (preparation.kind, preparation.dtype)
        assert set(other.learned) == set(preparation.learned)
        for key, value in preparation.learned.items():
            if key == "fills":
                np.testing.assert_allclose(other.learned[key], value, rtol=1e-13)
            else:
                assert other.learned[key] == value
        if preparation.scale is not None:
            np.testing.assert_allclose(other.scale.mean, preparation.scale.mean, rtol=1e-12)
            np.testing.assert_allclose(other.scale.deviation, preparation.scale.deviation, 1e-12)


def count_jobs(monkeypatch, module, name):
    """Returns a list that grows with every call of a function that encodes or surveys a part."""
    calls, function = [], getattr(module, name)

    def counted(*arguments):
        calls.append(arguments[0])
        return function(*arguments)

    monkeypatch.setattr(module, name, counted)
    return calls


@pytest.mark.parametrize(
    "write, ending, split",
    [
        (write_csv, ".csv", None),
        (write_parquet, ".parquet", "part"),
        pytest.param(write_csv, ".csv", Split(time="when"), marks=pytest.mark.slow),
        pytest.param(write_parquet, ".parquet", Split(stratify="mood"), marks=pytest.mark.slow),
    ],
)
def test_streamed_examples_equal_those_in_memory(tmp_path, write, ending, split):
    folder = write_folder(tmp_path / "people", write, ending)
    options = {"weights": {"mood": "trust"}, "split": split, "seed": 3}
    expected = from_table(folder, INPUTS, TARGETS, **options)
    streamed = from_table(folder, INPUTS, TARGETS, **options, stream=Streaming(tmp_path / "cache"))
    assert_same(expected, streamed)


def test_tables_per_split_dialects_and_blank_rows_equal_those_in_memory(tmp_path):
    paths = {}
    for seed, split in enumerate(["train", "validation", "test"]):
        paths[split] = tmp_path / f"{split}.csv"
        columns = make_columns(seed)
        columns["height"][5], columns["weight"][5] = None, None
        columns["price"][7] = "NA"
        write_csv(paths[split], columns, separator=";", decimal=",")
    options = {"dialect": Dialect(separator=";", decimal=","), "blank_rows": "drop"}
    inputs = {"body": Numbers(("height", "weight"))}
    expected = from_table(paths, inputs, TARGETS, **options)
    streamed = from_table(paths, inputs, TARGETS, **options, stream=Streaming(tmp_path / "cache"))
    assert_same(expected, streamed)
    assert streamed.facts == expected.facts
    assert streamed.facts["blank_rows"] == {"train": 1, "validation": 1, "test": 1}


@pytest.mark.slow
def test_images_are_decoded_when_taken_and_scanned_again_when_they_change(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for i in range(40):
        pixels = rng.integers(0, 255, (4, 5, 3), np.uint8)
        PillowImage.fromarray(pixels).save(tmp_path / f"{i}.png")
    names = [f"{i}.png" if i % 5 else None for i in range(40)]
    columns = {"face": names, "x": [float(i) for i in range(40)], "y": ["a", "b"] * 20}
    columns["part"] = ["train"] * 32 + ["test"] * 8
    write_csv(tmp_path / "faces.csv", columns)
    inputs = {"face": Image("face"), "x": "x"}
    expected = from_table(tmp_path / "faces.csv", inputs, {"y": "y"}, split="part")
    calls = count_jobs(monkeypatch, encode_table, "encode_part")
    for runs, changed in ((2, False), (2, False), (4, True)):
        if changed:
            PillowImage.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "39.png")
            expected = from_table(tmp_path / "faces.csv", inputs, {"y": "y"}, split="part")
        options = {"split": "part", "stream": Streaming(tmp_path / "cache")}
        streamed = from_table(tmp_path / "faces.csv", inputs, {"y": "y"}, **options)
        assert_same(expected, streamed)
        assert len(calls) <= runs


def write_scenes(folder, rows=24):
    """Writes masks and depth maps of 3 x 4 pixels, of which some are missing, and their table."""
    rng = np.random.default_rng(0)
    for i in range(rows):
        levels = rng.choice([0, 1, 2, 255], (3, 4)).astype(np.uint8)
        PillowImage.fromarray(levels).save(folder / f"mask-{i}.png")
        np.save(folder / f"depth-{i}.npy", rng.choice([np.nan, 0.5, 1.5], (3, 4)))
    columns = {
        "x": [float(i) for i in range(rows)],
        "mask": [f"mask-{i}.png" if i % 5 else None for i in range(rows)],
        "depth": [f"depth-{i}.npy" if i % 7 else None for i in range(rows)],
        "mood": [["bad", "good"][i % 2] for i in range(rows)],
        "trust": [1.0 + i for i in range(rows)],
        "part": ["train"] * (rows - 6) + ["test"] * 6,
    }
    write_csv(folder / "scenes.csv", columns)
    return folder / "scenes.csv"


def load_scenes(table, cache=None):
    kinds = {"mask": Mask("mask", ("sky", "sea", "land")), "depth": DepthMap("depth", scale=2.0)}
    options = {"split": "part", "weights": {"mask": "trust"}}
    options |= {} if cache is None else {"stream": Streaming(cache)}
    return from_table(table, {"mask": "x"}, {**kinds, "mood": "mood"}, **options)


def test_targets_in_files_are_read_when_taken_and_scanned_again_when_they_change(
    tmp_path, monkeypatch
):
    table = write_scenes(tmp_path)
    calls = count_jobs(monkeypatch, encode_table, "encode_part")
    streamed = load_scenes(table, tmp_path / "cache")
    assert_same(load_scenes(table), streamed)
    assert not {"mask", "depth"} & streamed.splits["train"].source.labels.targets.keys()
    first = compute_fingerprint(streamed.splits["test"])
    load_scenes(table, tmp_path / "cache")
    assert len(calls) == 1
    np.save(tmp_path / "depth-20.npy", np.full((3, 4), 7.0))
    streamed = load_scenes(table, tmp_path / "cache")
    assert_same(load_scenes(table), streamed)
    assert len(calls) == 2 and compute_fingerprint(streamed.splits["test"]) != first
    np.save(tmp_path / "depth-20.npy", np.full((1, 4), 7.0))
    with pytest.raises(ValueError, match=r"scenes.csv, line 22, 'depth': the file has changed"):
        streamed.splits["test"].take(np.arange(6))


@pytest.mark.parametrize("odd", [(2, 4), (3, 4)])
def test_bad_targets_in_files_are_refused(tmp_path, odd):
    table = write_scenes(tmp_path)
    if odd == (3, 4):  # masks of one class only
        for i in range(18):
            PillowImage.fromarray(np.full(odd, 2 + 253 * (i % 2), np.uint8)).save(
                tmp_path / f"mask-{i}.png"
            )
        message = r"task 'mask' has labels of one class only, 'land'"
    else:
        PillowImage.fromarray(np.zeros(odd, np.uint8)).save(tmp_path / "mask-19.png")
        message = r"line 21: target 'mask' is of the shape \(2, 4\); it must be \(3, 4\).* size="
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(ValueError, match=message):
            load_scenes(table, cache)


def test_only_changed_files_are_read_again(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "people", write_csv, ".csv")
    surveyed = count_jobs(monkeypatch, survey, "survey_part")
    encoded = count_jobs(monkeypatch, encode_table, "encode_part")
    described = count_jobs(monkeypatch, table_parts, "_describe_file")

    def load():
        return from_table(folder, FEW, TARGETS, stream=Streaming(tmp_path / "cache"))

    first = load()
    assert (len(described), len(surveyed), len(encoded)) == (3, 9, 9)
    prints = {s: compute_fingerprint(source) for s, source in first.splits.items()}
    assert {s: compute_fingerprint(source) for s, source in load().splits.items()} == prints
    assert (len(described), len(surveyed), len(encoded)) == (3, 9, 9)
    write_csv(folder / "part-1.csv", make_columns(seed=7))
    changed = load()
    assert (len(described), len(surveyed), len(encoded)) == (4, 12, 12)
    assert {p.path.name for p in encoded[9:]} == {"part-1.csv"}
    # A run that is resumed with it is refused by its fingerprint.
    assert compute_fingerprint(changed.splits["train"]) != prints["train"]
    assert_same(from_table(folder, FEW, TARGETS), changed)


def test_stopped_scan_continues(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "people", write_csv, ".csv")
    function, calls = encode_table.encode_part, []

    def interrupted(*arguments):
        calls.append(arguments[0])
        if len(calls) == 6:
            raise KeyboardInterrupt
        return function(*arguments)

    monkeypatch.setattr(encode_table, "encode_part", interrupted)
    options = {"stream": Streaming(tmp_path / "cache")}
    with pytest.raises(KeyboardInterrupt):
        from_table(folder, FEW, TARGETS, **options)
    streamed = from_table(folder, FEW, TARGETS, **options)
    assert len(calls) == 6 + 4  # of 9 parts, 5 were encoded
    assert_same(from_table(folder, FEW, TARGETS), streamed)


@pytest.mark.slow
def test_damaged_results_are_made_again(tmp_path):
    folder = write_folder(tmp_path / "people", write_csv, ".csv")
    stream = Streaming(tmp_path / "cache")
    from_table(folder, FEW, TARGETS, stream=stream)
    blocks = sorted((tmp_path / "cache").rglob("*.bin"))
    blocks[0].unlink()
    content = blocks[1].read_bytes()
    blocks[1].unlink()  # which is mapped into memory
    blocks[1].write_bytes(content[:10])
    results = sorted((tmp_path / "cache").rglob("part-*.json"))
    results[2].write_text(results[2].read_text()[:50])
    streamed = from_table(folder, FEW, TARGETS, stream=stream)
    assert_same(from_table(folder, FEW, TARGETS), streamed)


def test_source_can_be_sent_to_processes_which_read_disjoint_parts(tmp_path):
    folder = write_folder(tmp_path / "people", write_csv, ".csv")
    data = from_table(folder, FEW, TARGETS, stream=Streaming(tmp_path / "cache"))
    source = data.splits["train"]
    sent = pickle.loads(pickle.dumps(source))
    order = np.random.default_rng(0).permutation(len(source))
    halves = [sent.take(half) for half in np.array_split(order, 2)]
    whole = source.take(order)
    for m, x in whole.inputs.items():
        np.testing.assert_array_equal(x, np.concatenate([half.inputs[m] for half in halves]))


@pytest.mark.parametrize(
    "column, cell, inputs, targets",
    [
        ("note", None, {"note": Text("note")}, {"mood": "mood"}),
        ("weight", "heavy", {"weight": Numbers("weight")}, {"mood": "mood"}),
        ("price", "dear", {"note": Text("note")}, {"price": Value("price")}),
        ("trust", "-1", {"note": Text("note")}, {"mood": "mood"}),
        ("mood", "odd", {"note": Text("note")}, {"mood": Label("mood", classes=("bad", "good"))}),
        ("part", None, {"note": Text("note")}, {"mood": "mood"}),
    ],
)
def test_bad_cells_are_refused_in_the_same_words(tmp_path, column, cell, inputs, targets):
    columns = make_columns(seed=1)
    columns[column] = [None if c is None else str(c) for c in columns[column]]
    columns[column][40] = cell
    # One format each, as both give the same tables.
    path = tmp_path / f"people.{'parquet' if column in ('weight', 'trust') else 'csv'}"
    (write_parquet if path.suffix == ".parquet" else write_csv)(path, columns)
    options = {"weights": {"mood": "trust"} if "mood" in targets else {}, "split": "part"}
    with pytest.raises(ValueError) as expected:
        from_table(path, inputs, targets, **options)
    assert str(path) in str(expected.value)
    with pytest.raises(ValueError, match=re.escape(str(expected.value))):
        from_table(path, inputs, targets, **options, stream=Streaming(tmp_path / "cache"))


def test_files_that_do_not_fit_together_are_refused(tmp_path):
    stream = Streaming(tmp_path / "cache")
    folder = tmp_path / "people"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="has no table"):
        from_table(folder, INPUTS, TARGETS, stream=stream)
    with pytest.raises(FileNotFoundError, match=r"nothing.csv does not exist"):
        from_table([tmp_path / "nothing.csv"], INPUTS, TARGETS, stream=stream)
    write_parquet(folder / "a.parquet", make_columns(0))
    write_csv(folder / "b.csv", make_columns(1))
    with pytest.raises(ValueError, match="must both be CSV, or both Parquet"):
        from_table(folder, INPUTS, TARGETS, stream=stream)
    (folder / "b.csv").unlink()
    columns = make_columns(1)
    write_parquet(folder / "b.parquet", {**columns, "age": [str(a) for a in columns["age"]]})
    with pytest.raises(ValueError, match=r"'age' has numbers in .*a.parquet, but texts in .*b.par"):
        from_table(folder, INPUTS, TARGETS, stream=stream)
    columns.pop("age")
    write_parquet(folder / "b.parquet", columns)
    with pytest.raises(ValueError, match=r"b.parquet has no column 'age'"):
        from_table(folder, INPUTS, TARGETS, stream=stream)
    write_parquet(folder / "b.parquet", make_columns(1))
    content = (folder / "b.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"b.parquet is not a whole Parquet file"):
        from_table(folder, INPUTS, TARGETS, stream=stream)


def test_columns_whose_kind_differs_between_parts_must_be_named(tmp_path):
    folder = write_folder(tmp_path / "people", write_csv, ".csv")
    write_csv(folder / "part-2.csv", {**make_columns(5), "weight": ["heavy"] * ROWS})
    with pytest.raises(ValueError, match=r"'weight' looks like Numbers from .*t-0.csv, .*Text"):
        from_table(folder, {"w": "weight"}, TARGETS, stream=Streaming(tmp_path / "cache"))


def test_what_cannot_be_streamed_is_refused(tmp_path):
    write_csv(tmp_path / "a.csv", make_columns(0))
    stream = Streaming(tmp_path / "cache")
    with pytest.raises(ValueError, match="stream is for files"):
        from_table(make_columns(0), INPUTS, TARGETS, stream=stream)
    with pytest.raises(ValueError, match="leave in_memory and scan_cache out"):
        from_table(tmp_path / "a.csv", INPUTS, TARGETS, stream=stream, in_memory=False)
    with pytest.raises(ValueError, match=r"more than the limit of 10 B; .*max_disk=\d+ or more"):
        from_table(tmp_path / "a.csv", INPUTS, TARGETS, stream=stream._replace(max_disk=10))


@pytest.mark.slow
def test_processes_give_the_same_and_a_killed_one_is_reported(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "people", write_csv, ".csv")
    monkeypatch.setattr("mmjax.data.load.stored.parallel_jobs._MIN_BYTES", 0)
    expected = from_table(folder, INPUTS, TARGETS)
    streamed = from_table(folder, INPUTS, TARGETS, stream=Streaming(tmp_path / "c", processes=2))
    assert_same(expected, streamed)
    jobs = [Job(f"exit-{i}", os._exit, (9,)) for i in range(2)]
    with pytest.raises(WorkerKilledError, match="exit code 9"):
        list(JobFolder(tmp_path / "jobs", 2).run(jobs, "Ending"))


_MEMORY_PROGRAM = """
import re, sys, threading, time
from pathlib import Path
import numpy as np
from mmjax.data import Streaming, Text, from_table

peak = 0

def watch():
    # Pages of memory maps are not anonymous: the system takes them back when it needs memory.
    global peak
    while True:
        text = Path("/proc/self/smaps_rollup").read_text()
        peak = max(peak, 1024 * int(re.search(r"^Anonymous: +([0-9]+) kB", text, re.M)[1]))
        time.sleep(0.02)

threading.Thread(target=watch, daemon=True).start()
files, cache = sys.argv[2:], sys.argv[1]
data = from_table(files, {"note": Text("note")}, {"y": "y"}, stream=Streaming(cache, 1))
source = data.splits["train"]
order = np.random.default_rng(0).permutation(len(source))
for start in range(0, len(order), 64):
    source.take(order[start : start + 64])
print(len(source), peak)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(0)
    files, length, rows = [], 16_000, 1000
    for i in range(24):
        notes = [rng.integers(32, 127, length, np.uint8).tobytes().decode() for _ in range(rows)]
        files.append(tmp_path / f"{i:02}.parquet")
        table = pyarrow.table({"note": notes, "y": rng.integers(0, 3, rows)})
        parquet.write_table(table, files[-1], row_group_size=250, use_dictionary=False)
    peaks = []
    # Else the allocators keep freed memory, more or less of it by the timing of the threads.
    allocators = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}
    environment = os.environ | allocators | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    for count in (4, 24):
        command = [sys.executable, "-W", "ignore", "-c", _MEMORY_PROGRAM, tmp_path / f"c{count}"]
        done = subprocess.run(
            [*command, *files[:count]], check=True, capture_output=True, text=True, env=environment
        )
        examples, peak = map(int, done.stdout.split())
        assert examples == round(0.8 * count * rows)
        peaks.append(peak)
    # The further data are more than ten times as large as the memory that they take.
    assert 10 * (peaks[1] - peaks[0]) < 20 * rows * length
