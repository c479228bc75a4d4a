"""One scale of numbers must hold for all splits of a modality."""

import re
import tracemalloc

import numpy as np
import pytest

from mmjax.data.checks.value_ranges import check_same_scale, measure_value_range
from mmjax.data.load.from_arrays import from_arrays

SIZES = {"train": 30, "validation": 9, "test": 11}


def pixels(seed, examples):
    return np.random.default_rng(seed).integers(0, 256, (examples, 4, 4, 1)).astype(np.uint8)


def splits(**changes):
    made = {s: {"x": pixels(i, n), "y": np.arange(n) % 2} for i, (s, n) in enumerate(SIZES.items())}
    for split, change in changes.items():
        made[split]["x"] = change(made[split]["x"])
    return made


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x / 255,
        lambda x: x.astype(np.float32) / 255,
        lambda x: x.astype(np.float32),
        lambda x: list(x / 255),
        lambda x: (x > 127).astype(np.uint8),
    ],
)
def test_pixels_beside_floats_are_refused_with_both_ranges(split, change):
    other = change(pixels(list(SIZES).index(split), SIZES[split]))
    low, high = (
        f"{np.asarray(other).astype(np.float32).astype(float).__getattribute__(f)():.4g}"
        for f in ("min", "max")
    )
    kind = other[0].dtype
    message = (
        f"modality 'x' is uint8 from 0 to 255 in 'train', but {kind} from {low} to {high} in "
        f"'{split}'; convert all splits to the same type and scale."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        from_arrays(splits(**{split: change}), ("x",), ("y",))


@pytest.mark.parametrize("change", [lambda x: x, lambda x: x / 255, lambda x: x.astype(np.int16)])
def test_splits_of_one_scale_pass(change):
    from_arrays(splits(**dict.fromkeys(SIZES, change)), ("x",), ("y",))


def test_vectors_may_differ_in_magnitude():
    rng = np.random.default_rng(0)
    made = {s: {"x": rng.normal(size=(n, 5)), "y": np.arange(n) % 2} for s, n in SIZES.items()}
    made["test"]["x"] /= 1e3
    made["validation"]["x"] = rng.integers(0, 9, (9, 5))
    assert from_arrays(made, ("x",), ("y",)).modalities["x"].shape == (5,)


def test_rows_of_two_types_in_one_split_are_refused():
    made = splits(train=lambda x: [*x[:-1], x[-1] / 255])
    with pytest.raises(ValueError, match="'x' of split 'train' has rows of uint8 and rows of floa"):
        from_arrays(made, ("x",), ("y",))


def test_a_range_is_of_what_is_present_and_finite():
    rows = np.array([[1.0, np.nan], [9e9, 9e9], [-3.0, np.inf]], np.float32)
    found = measure_value_range(rows, np.array([True, False, True]))
    assert (found.low, found.high, found.axes) == (-3, 1, 1)
    assert measure_value_range(rows, np.zeros(3, bool)) is None
    assert measure_value_range([np.zeros((0,)), np.ones((2, 3))], np.ones(2, bool)).axes == 2
    check_same_scale("toy", "x", {"train": found, "test": None})


def test_sequences_may_differ_in_magnitude():
    """Images of such numbers would be refused: a sequence of counts may rise from 1 to 100."""
    rng = np.random.default_rng(0)
    made = {
        s: {"x": rng.integers(0, 2, (n, 6, 3)), "n": np.full(n, 6), "y": np.arange(n) % 2}
        for s, n in SIZES.items()
    }
    made["test"]["x"] *= 100
    found = from_arrays(made, ("x",), ("y",), lengths={"x": "n"})
    assert found.splits["test"].batch.inputs["x"].max() == 100
    with pytest.raises(ValueError, match="convert all splits to the same type and scale"):
        from_arrays(made, ("x",), ("y",))


@pytest.mark.filterwarnings("ignore:.*have the same inputs")
@pytest.mark.parametrize(
    "make",
    [
        lambda rng, n: rng.integers(0, 2, (n, 4, 4, 1)).astype(np.uint8),  # masks
        lambda rng, n: np.eye(16, dtype=np.uint8)[rng.integers(0, 16, n)].reshape(n, 4, 4),
        lambda rng, n: rng.normal(size=(n, 4, 4, 3)) * 3,  # standardized already
        lambda rng, n: rng.gamma(2.0, 3.0, (n, 4, 4, 1)),  # depths in meters
        lambda rng, n: np.zeros((n, 4, 4, 1), np.uint8),
    ],
)
def test_other_images_of_one_scale_pass(make):
    rng = np.random.default_rng(0)
    made = {s: {"x": make(rng, n), "y": np.arange(n) % 2} for s, n in SIZES.items()}
    from_arrays(made, ("x",), ("y",))


def test_large_examples_are_sampled_in_little_memory():
    """A range takes a few examples of photographs, from the first to the last."""
    rows = np.zeros((300, 256, 256, 1), np.uint8)
    rows[-1] = 255
    tracemalloc.start()
    found = measure_value_range(rows, np.ones(300, bool))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.low, found.high) == (0, 255) and peak < 16e6 < rows.nbytes
