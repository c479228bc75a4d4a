"""Precision, memory and order of large arrays, and arrays that stay on disk."""

import os
import tracemalloc

import jax
import numpy as np
import pytest

from mmjax.config import trust
from mmjax.data.kinds import Numbers
from mmjax.data.load.arrays import assemble_arrays, columns
from mmjax.data.load.from_arrays import from_arrays
from mmjax.data.load.from_table import from_table
from mmjax.data.mapped_arrays import MappedArrays
from mmjax.data.sampling.batch_order import _draw_epoch_orders, make_train_indices


def test_epoch_seconds_within_a_minute_stay_different(tmp_path, capsys):
    seconds = 1.7e9 + np.round(np.sort(np.random.default_rng(0).uniform(0, 60, 200)), 3)
    rows = "".join(f"{t:.3f},{i % 2},0.1\n" for i, t in enumerate(seconds))
    (tmp_path / "t.csv").write_text("when,y,same\n" + rows)
    inputs = {"t": Numbers(("when", "same"))}
    data = from_table({"train": tmp_path / "t.csv"}, inputs, {"y": "y"})
    right = (seconds - seconds.mean()) / seconds.std()
    x = data.splits["train"].batch.inputs["t"]
    np.testing.assert_allclose(x[:, 0], right, atol=1e-6)
    assert x.dtype == np.float32 and np.abs(x[:, 1]).max() < 1e-15  # rounding of the mean
    assert "1 of 2 features are constant in train: same" in capsys.readouterr().err
    part = {"t": seconds, "y": np.arange(200) % 2}
    arrays = from_arrays({"train": part}, ("t",), ("y",)).splits["train"].batch.inputs["t"]
    np.testing.assert_allclose(arrays[:, 0], right, atol=1e-6)


def test_numbers_beyond_32_bits_are_refused_with_their_line(tmp_path):
    (tmp_path / "t.csv").write_text("x,y\n1,a\n1e39,b\n")
    with pytest.raises(ValueError, match=r"line 3: modality 'x' has numbers beyond 32 bits, such"):
        from_table({"train": tmp_path / "t.csv"}, {"x": "x"}, {"y": "y"})


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_peak_memory_is_below_one_and_a_half_times_the_data(kind):
    rng = np.random.default_rng(0)
    part = {"x": rng.normal(size=(60_000, 64)).astype(kind), "y": np.arange(60_000) % 5}
    part["x"][7] = np.nan
    part["z"] = rng.normal(size=(60_000, 2))
    size = sum(array.nbytes for array in part.values())
    tracemalloc.start()
    try:
        from_arrays({"train": part}, ("x", "z"), ("y",))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * size


@pytest.mark.parametrize("standardize", [None, ()])
def test_memory_maps_stay_on_disk_and_give_what_arrays_give(tmp_path, standardize):
    rng = np.random.default_rng(0)
    x = rng.normal(5, 2, (300, 4))
    x[3] = np.nan
    other = {"z": rng.normal(size=300), "y": np.arange(300) % 3}
    np.save(tmp_path / "x.npy", x)
    mapped = {"x": np.load(tmp_path / "x.npy", mmap_mode="r")}

    def load(arrays):
        splits = {"train": arrays | other}
        return from_arrays(splits, ("x", "z"), ("y",), standardize=standardize).splits["train"]

    source = load(mapped)
    assert isinstance(source, MappedArrays)
    assert np.shares_memory(source.batch.inputs["x"], mapped["x"])
    indices = rng.integers(0, 300, 50)
    jax.tree.map(np.testing.assert_array_equal, source.take(indices), load({"x": x}).take(indices))


def test_orders_of_epochs_are_drawn_as_before_in_little_memory():
    for seed, epoch in ((0, 0), (3, 2)):
        order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(50)
        for first in (0, 2):
            start = epoch * 6 + first
            indices = make_train_indices([seed], 50, 8, start, start + 3)
            expected = order[first * 8 : (first + 3) * 8].reshape(1, 3, 8)
            np.testing.assert_array_equal(indices, expected)
            assert indices.dtype == np.int32
    tracemalloc.start()
    try:
        for epoch in range(8):
            make_train_indices([0], 100_000, 100, 1000 * epoch, 1000 * epoch + 1)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        _draw_epoch_orders.cache_clear()
    assert kept < 3 * 4 * 100_000


def make_map_parts(folder, mode="r"):
    """Writes two splits into one file, and maps them with gaps and lengths."""
    path = folder / "x.npy"
    if not path.exists():
        x = np.random.default_rng(0).normal(1e6, 2, (300, 4, 3))
        x[[3, 250]] = np.nan
        np.save(path, x)
    x = np.load(path, mmap_mode=mode)
    ends = np.arange(300) % 4 + 1
    whole = {"n": ends, "z": np.arange(300.0), "y": np.arange(300) % 3}
    rows = {"train": slice(0, 200), "test": slice(200, 300)}
    return {s: {"x": x[part]} | {k: v[part] for k, v in whole.items()} for s, part in rows.items()}


def load_maps(parts, cache=None):
    options = {"lengths": {"x": "n"}, "scan_cache": cache}
    return from_arrays(parts, ("x", "z"), ("y",), **options)


def assert_equal_data(a, b):
    assert (a.modalities, a.tasks) == (b.modalities, b.tasks)
    jax.tree.map(
        np.testing.assert_array_equal, a.preparations["x"].scale, b.preparations["x"].scale
    )
    for split, source in a.splits.items():
        order = np.arange(len(source))
        other = b.splits[split].take(order)
        jax.tree.map(np.testing.assert_array_equal, source.take(order), other)


@pytest.fixture
def passes(monkeypatch):
    """Counts the passes over arrays on disk."""
    counts = []
    for module, name in (
        (columns, "_find_blank_rows"),
        (assemble_arrays, "check_values"),
        (assemble_arrays, "compute_scale_by_chunks"),
        (assemble_arrays, "hash_modality"),
    ):
        function = getattr(module, name)

        def count(*arguments, function=function):
            # Of the input in memory, nothing is stored.
            names = [value for value in arguments if isinstance(value, str)]
            is_map = isinstance(arguments[0], np.memmap) or "x" in names
            counts.extend([function.__name__] * is_map)
            return function(*arguments)

        monkeypatch.setattr(module, name, count)
    return counts


def test_memory_maps_are_read_once_and_give_the_same(tmp_path, passes):
    right = load_maps(make_map_parts(tmp_path))
    passes.clear()
    assert_equal_data(load_maps(make_map_parts(tmp_path), tmp_path / "cache"), right)
    # Gaps with and without padding, checks and hashes of two splits, and the scale of one.
    assert len(passes) == 9
    passes.clear()
    assert_equal_data(load_maps(make_map_parts(tmp_path), tmp_path / "cache"), right)
    assert not passes


@pytest.mark.parametrize("change", ["content", "time", "file", "part", "mode", "lengths", "damage"])
def test_what_changed_in_memory_maps_is_read_again(tmp_path, passes, change):
    load_maps(make_map_parts(tmp_path), tmp_path / "cache")
    passes.clear()
    path, expected = tmp_path / "x.npy", 9
    parts = make_map_parts(tmp_path, "c" if change == "mode" else "r")
    if change in ("content", "time"):
        expected = 6 if change == "content" else 9  # of the test split, whose scale is another one
        status = path.stat()
        x = np.load(path)
        x[0, 0] += change == "content"  # a row that is sampled, under an old time
        np.save(path, x)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + (change == "time")))
        parts = make_map_parts(tmp_path)
    elif change == "file":
        np.save(tmp_path / "other.npy", np.load(path))
        (tmp_path / "other.npy").replace(path)
        parts = make_map_parts(tmp_path)
    elif change == "part":  # as many rows of the same file, elsewhere
        parts["test"]["x"] = np.load(path, mmap_mode="r")[100:200]
        expected = 4
    elif change == "lengths":
        parts["test"]["n"] = parts["test"]["n"][::-1].copy()
        expected = 3
    elif change == "damage":
        for stored in (tmp_path / "cache").iterdir():
            stored.write_bytes(stored.read_bytes()[:-9])
    elif change == "mode":
        parts["train"]["x"][5] = 7.0
        with pytest.raises(ValueError, match=r"no input is one that is read-only"):
            load_maps(parts, tmp_path / "cache")
        return
    assert_equal_data(load_maps(parts, tmp_path / "cache"), load_maps(parts))
    assert len(passes) - 9 == expected


def test_scan_cache_of_memory_maps_is_not_for_arrays_errors_and_untrusted_runs(tmp_path):
    parts = make_map_parts(tmp_path)
    parts["train"]["x"] = np.array(parts["train"]["x"])  # what is in memory is always read
    with trust.open_stored_run(trust.Trust()):
        load_maps(parts, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    load_maps(parts, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 4
    x = np.load(tmp_path / "x.npy")
    x[220, 0] = np.inf
    np.save(tmp_path / "x.npy", x)
    for _ in range(2):  # an error is not kept
        with pytest.raises(ValueError, match=r"'test': modality 'x' has inf in row 20"):
            load_maps(make_map_parts(tmp_path), tmp_path / "cache")
