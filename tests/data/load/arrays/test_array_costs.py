"""Precision, memory and order of large arrays, and arrays that stay on disk."""

import tracemalloc

import jax
import numpy as np
import pytest

from mmjax.data.kinds import Numbers
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
