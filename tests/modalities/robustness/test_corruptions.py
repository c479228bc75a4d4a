"""Every corruption against its definition: identity at 0, growing, with padding untouched."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from mmjax.data.dataset import Modality
from mmjax.data.kinds.category import CategoryModality
from mmjax.data.load.decode import BYTE_TOKEN_NAMES
from mmjax.modalities.robustness.corruption import corrupt_batch
from mmjax.modalities.robustness.corruption_table import (
    CORRUPTIONS_OF_KIND,
    infer_corruption_kind,
    make_corruptions,
)
from mmjax.modalities.robustness.input_statistics import measure_values
from mmjax.modalities.robustness.text_corruptions import make_keyboard_table
from mmjax.types import Batch

EXAMPLES = 64
LEVELS = (0.0, 0.1, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)
RISING = [0, 2, 5, 6, 7]  # positions of evenly spaced levels
ABSENT = [3, 5]
RNG = np.random.default_rng(0)
HERE = ~np.isin(np.arange(EXAMPLES), ABSENT)
LENGTHS = RNG.integers(4, 21, EXAMPLES).astype(np.int32)
INSIDE = (np.arange(20)[None] < LENGTHS[:, None]) & HERE[:, None]
_TEXT = Modality((20,), True, BYTE_TOKEN_NAMES)
_WORDS = Modality((20,), True, ("padding", "unknown", *"abcdefgh"))
_PET = CategoryModality((2,), False, ("missing", "a: unknown", "a: x", "b: unknown", "b: y"))


def smooth_images(dtype):
    """Images without sharp edges, so that any rotation or crop changes them."""
    noise = RNG.normal(size=(EXAMPLES, 12, 10, 2))
    blurred = ndimage.gaussian_filter(noise, (0, 2, 2, 0))
    scaled = (blurred - blurred.min()) / np.ptp(blurred)
    return (255 * scaled).astype(np.uint8) if dtype == np.uint8 else scaled.astype(np.float32)


LETTERS = RNG.choice([ord(c) + 1 for c in "abcxyzGHK059"], (EXAMPLES, 20)).astype(np.int32)
ORDER = np.tile(np.arange(1, 21, dtype=np.int32), (EXAMPLES, 1))
GRAY = np.full((EXAMPLES, 12, 10, 1), 127.5, np.float32)
GRAY[0, 0, 0], GRAY[0, 0, 1] = 0, 255
RAMP = np.broadcast_to(np.arange(12, dtype=np.float32)[None, :, None, None], GRAY.shape)
WALKS = RNG.normal(size=(EXAMPLES, 20, 3)).cumsum(axis=1)
INPUTS = {
    "image": ("image", Modality((12, 10, 2)), smooth_images(np.float32), None),
    "pixels": ("image", Modality((12, 10, 2)), smooth_images(np.uint8), None),
    "bytes": ("bytes", _TEXT, LETTERS, LENGTHS),
    "words": ("tokens", _WORDS, RNG.integers(2, 10, (EXAMPLES, 20)).astype(np.int32), LENGTHS),
    "series": ("series", Modality((20, 3), True), (5 + [1, 10, 100] * WALKS).astype("f"), LENGTHS),
    "wave": ("series", Modality((20,), True), WALKS[:, :, 0].astype("f"), LENGTHS),
    "vector": ("vector", Modality((4,)), RNG.normal(3, 2, (EXAMPLES, 4)).astype("f"), None),
    "pet": ("categories", _PET, RNG.choice([[2, 4], [2, 3]], EXAMPLES).astype(np.int32), None),
    "gray": ("image", Modality((12, 10, 1)), GRAY, None),
    "ramp": ("image", Modality((12, 10, 1)), RAMP, None),
    "order": ("tokens", Modality((20,), True), ORDER, LENGTHS),
}
ONLY = {
    "pixels": ["rotation", "inversion"],
    "words": ["token_drop"],
    "wave": ["noise"],
    "gray": ["noise"],
    "ramp": ["crop"],
    "order": ["swap", "omission", "sticky_keys"],
}
PLATEAUS = ("sticky_keys", "rotation")  # may come a little nearer again, as 135 degrees do


def make_changes(name, names=None):
    kind, modality, x, lengths = INPUTS[name]
    lengths = None if lengths is None else lengths[HERE]
    return make_corruptions(kind, measure_values(x[HERE], modality, lengths), names)


def make_input(name):
    """The input with anything in the place of padding and of absent examples."""
    x, lengths = INPUTS[name][2].copy(), INPUTS[name][3]
    anything = np.nan if x.dtype.kind == "f" else 99
    x[ABSENT] = anything
    if lengths is not None:
        x[~INSIDE] = anything
    return x


@functools.cache
def corrupt(name):
    """Corrupts an input in every way at every level by one program: {name: [levels ...]}."""
    changes, lengths = make_changes(name, ONLY.get(name)), INPUTS[name][3]
    length = {} if lengths is None else {"m": lengths}
    batch = Batch({"m": make_input(name)}, {"m": HERE}, length, {}, {})

    @jax.jit
    def at_levels(levels):
        def at(level):
            key, indices = jax.random.key(7), np.arange(EXAMPLES)
            corrupted = {
                corruption: corrupt_batch({"m": change}, batch, level, key, indices)
                for corruption, change in changes.items()
            }
            return {corruption: batch.inputs["m"] for corruption, batch in corrupted.items()}

        return jax.vmap(at)(levels)

    return jax.device_get(at_levels(jnp.array(LEVELS)))


_SLOW = ("image", "pixels", "bytes", "series")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in _SLOW))
        for name in INPUTS
        if name not in ("gray", "ramp")
    ],
)
def test_corruptions_start_at_the_input_and_grow(name):
    """Padding, even NaN, and absent examples stay as they are."""
    x = make_input(name)
    real = INSIDE if INPUTS[name][3] is not None else HERE
    real = np.broadcast_to(real.reshape(*real.shape, *(1,) * (x.ndim - real.ndim)), x.shape)
    before = x[real].astype(float)
    assert name in ONLY or set(corrupt(name)) == set(CORRUPTIONS_OF_KIND[INPUTS[name][0]])
    for corruption, changed in corrupt(name).items():
        assert changed.dtype == x.dtype
        np.testing.assert_array_equal(changed[0], x)
        for level in changed:
            np.testing.assert_array_equal(level[~real], x[~real])
        after = changed[RISING][:, real].astype(float)
        assert np.isfinite(after).all()
        is_token = x.dtype == np.int32
        distance = ((after != before) if is_token else (after - before[None]) ** 2).mean(axis=1)
        slack = (0.05 if corruption in PLATEAUS else 1e-6) * distance.max()
        assert (np.diff(distance) >= -slack).all(), (corruption, distance)
        assert distance[1] > 0 and distance[-1] > 1.3 * distance[1], (corruption, distance)


@pytest.mark.parametrize(("name", "corruption"), [("order", "omission"), ("wave", "noise")])
def test_a_change_depends_on_the_index_and_not_on_the_batch(name, corruption):
    changes = {"m": make_changes(name)[corruption]}

    @jax.jit
    def corrupt_rows(rows):
        x, here, lengths = map(jnp.asarray, (make_input(name), HERE, LENGTHS))
        batch = Batch({"m": x[rows]}, {"m": here[rows]}, {"m": lengths[rows]}, {}, {})
        return corrupt_batch(changes, batch, 0.5, jax.random.key(7), rows).inputs["m"]

    for rows in ([9, 3, 40, 7], [40]):
        found = corrupt_rows(np.array(rows))
        expected = corrupt(name)[corruption][LEVELS.index(0.5), rows]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


ENDS, REAL = LENGTHS[HERE], INSIDE[HERE]  # of the examples that are not absent
COUNT = int(HERE.sum())


def given(name):
    return INPUTS[name][2][HERE].astype(np.float64)


def at_level(name, corruption, level):
    return corrupt(name)[corruption][LEVELS.index(level)][HERE].astype(np.float64)


def check_mean(values, expected, deviation):
    """Asserts that a sample mean is within five standard errors."""
    error = 5 * deviation / np.sqrt(np.size(values))
    assert abs(np.mean(values) - expected) < error, (np.mean(values), expected)


def test_pixel_noise_has_half_the_range_and_is_clipped():
    """Of mid-gray pixels, 68% change by at most one deviation, here a quarter of the range."""
    noise = at_level("gray", "noise", 0.5)[1:] - given("gray")[1:]
    check_mean(np.abs(noise) < 63.75, 0.6827, 0.47)
    strong = at_level("gray", "noise", 1.0)
    assert (strong.min(), strong.max()) == (0, 255)


@pytest.mark.slow
def test_salt_and_pepper_is_a_share_of_the_pixels_in_all_channels():
    x, found = given("image"), at_level("image", "salt_and_pepper", 0.3)
    changed = (found != x).any(axis=-1)
    low, high = x.min(axis=(0, 1, 2)), x.max(axis=(0, 1, 2))
    check_mean(changed, 0.3, 0.46)
    salt = found[changed] == high
    assert (salt.all(axis=1) | (found[changed] == low).all(axis=1)).all()
    check_mean(salt[:, 0], 0.5, 0.5)


@pytest.mark.slow
def test_blur_is_a_normalized_convolution():
    x, sigma = given("image"), 0.5 * 10 / 8
    options = {"sigma": (0, sigma, sigma, 0), "mode": "constant", "truncate": 40.0}
    expected = ndimage.gaussian_filter(x, **options)
    expected /= ndimage.gaussian_filter(np.ones_like(x), **options)
    np.testing.assert_allclose(at_level("image", "blur", 0.5), expected, atol=2e-6)


@pytest.mark.slow
def test_contrast_and_inversion_are_mixtures():
    x, pixels = given("image"), given("pixels")
    mean = x.mean(axis=(1, 2), keepdims=True)
    found = at_level("image", "contrast", 0.4)
    np.testing.assert_allclose(found, 0.4 * mean + 0.6 * x, atol=1e-6)
    np.testing.assert_array_equal(at_level("pixels", "inversion", 1.0), 255 - pixels)
    mixed = 0.25 * (255 - pixels) + 0.75 * pixels
    assert np.abs(at_level("pixels", "inversion", 0.25) - mixed).max() <= 0.5


@pytest.mark.slow
def test_an_occlusion_is_a_rectangle_of_its_share():
    x, found = given("image"), at_level("image", "occlusion", 0.25)
    corners = set()
    for before, after in zip(x, found, strict=True):
        rows, columns = np.nonzero((before != after).any(axis=-1))
        assert len(rows) == 6 * 5
        assert np.ptp(rows) == 5 and np.ptp(columns) == 4
        corners.add((rows.min(), columns.min()))
        np.testing.assert_allclose(after[rows[0], columns[0]], x.mean(axis=(0, 1, 2)), rtol=1e-5)
    assert {i for i, _ in corners} == set(range(7)) and {j for _, j in corners} == set(range(6))


@pytest.mark.slow
def test_a_rotation_is_that_of_scipy():
    """Of 45 degrees in either direction, in float64; zeros surround the image."""
    directions = set()
    pairs = zip(given("pixels")[:12], at_level("pixels", "rotation", 0.5)[:12], strict=True)
    for before, after in pairs:
        options = {"reshape": False, "order": 1, "mode": "grid-constant"}
        turned = [ndimage.rotate(before, angle, **options) for angle in (45, -45)]
        errors = [np.abs(expected - after).max() for expected in turned]
        directions.add(int(np.argmin(errors)))
        assert min(errors) <= 0.51  # rounded to whole levels
    assert directions == {0, 1}


def test_a_crop_of_a_ramp_is_a_flatter_ramp():
    rows = at_level("ramp", "crop", 1.0)[:, :, 0, 0]
    starts = rows[:, 5] + 0.5 - 5.5 / 2  # where the window of 6 pixels begins
    assert (starts >= -1e-4).all() and (starts <= 6 + 1e-4).all() and np.ptp(starts) > 4
    expected = np.clip(starts[:, None] + (np.arange(12) + 0.5)[None] / 2 - 0.5, 0, 11)
    np.testing.assert_allclose(rows, expected, atol=1e-4)


@pytest.mark.slow
def test_tokens_are_dropped_and_typed_at_their_rate():
    text = given("bytes")
    dropped = at_level("bytes", "token_drop", 0.3)
    assert (dropped[REAL & (dropped != text)] == ord(" ") + 1).all()
    check_mean((dropped != text)[REAL], 0.3, 0.46)
    typed = at_level("bytes", "typo", 0.3)
    check_mean((typed != text)[REAL], 0.3, 0.46)
    for letter, near in {"a": "qwsz", "x": "zsdc", "G": "TYFHVB", "0": "9op"}.items():
        wrong = typed[REAL & (typed != text) & (text == ord(letter) + 1)]
        found = {chr(int(t) - 1) for t in wrong}
        assert found <= set(near) and len(found) > 1, (letter, found)
    assert (at_level("words", "token_drop", 1.0)[REAL] == 1).all()  # the unknown word


def test_keyboard_neighbors_are_mutual_and_keep_the_case():
    table, counts = make_keyboard_table()
    near = {t: set(table[t, : counts[t]]) for t in range(257)}
    for token in [ord(c) + 1 for c in "qwertyuiopasdfghjklzxcvbnm1234567890"]:
        assert 2 <= counts[token] <= 8
        assert all(token in near[other] for other in near[token])
    assert counts[0] == counts[ord(" ") + 1] == 0
    assert near[ord("G") + 1] == {ord(chr(t - 1).upper()) + 1 for t in near[ord("g") + 1]}


def count_swaps(text, length, found):
    """Counts the tokens of disjoint swapped pairs; nothing else may have changed."""
    i = swapped = 0
    while i < length:
        if found[i] == text[i]:
            i += 1
        else:
            assert i + 1 < length and found[i] == text[i + 1] and found[i + 1] == text[i]
            i, swapped = i + 2, swapped + 2
    return swapped


@pytest.mark.parametrize("level", [0.4, 1.0])
def test_neighbors_are_swapped_in_disjoint_pairs(level):
    """A text of n tokens has n // 2 pairs from the first token on, and (n - 1) // 2 others."""
    found = at_level("order", "swap", level)
    counts = [count_swaps(*row) for row in zip(given("order"), ENDS, found, strict=True)]
    shares = np.array(counts) / ENDS
    check_mean(shares, level * np.mean((ENDS // 2 + (ENDS - 1) // 2) / ENDS), 0.4)
    if level == 1:
        assert set(counts - 2 * (ENDS // 2)) <= {0, -2}


def test_omissions_keep_the_order_and_sticky_keys_double():
    stays, doubles = [], []
    for row, length in zip(at_level("order", "omission", 0.3), ENDS, strict=True):
        tokens = row[:length][row[:length] > 0]
        assert (row[len(tokens) : length] == 0).all() and (np.diff(tokens) > 0).all()
        stays += list(np.isin(np.arange(1, length + 1), tokens))
    check_mean(stays, 0.7, 0.46)
    for row, length in zip(at_level("order", "sticky_keys", 0.3), ENDS, strict=True):
        assert set(np.diff(row[:length])) <= {0, 1} and row[0] == 1
        counts = np.bincount(row[:length].astype(int))[1:-1]  # the last one may be cut off
        assert (counts <= 2).all()
        doubles += list(counts == 2)
    # The longer text of a doubled token cuts others off, which favors tokens that are not.
    check_mean(doubles, 0.3, 0.46)


@pytest.mark.parametrize("name", [pytest.param("series", marks=pytest.mark.slow), "wave"])
def test_noise_has_its_ratio_of_signal_to_noise(name):
    """20 dB at level 0.1: measured per feature over all real steps."""
    x = given(name)
    noise = (at_level(name, "noise", 0.1) - x)[REAL].reshape(REAL.sum(), -1)
    signal = x[REAL].reshape(REAL.sum(), -1)
    signal = signal - signal.mean(axis=0)
    ratio = 10 * np.log10((signal**2).mean(axis=0) / (noise**2).mean(axis=0))
    # 5 deviations of the power of some 700 normal numbers of unequal variance.
    np.testing.assert_allclose(ratio, 20, atol=1.8)


@pytest.mark.slow
def test_steps_are_dropped_one_by_one_or_as_a_block():
    mean = given("series")[REAL].mean(axis=0)
    single, block = (
        np.isclose(at_level("series", c, 0.3), mean, rtol=1e-4, atol=1e-3).all(axis=-1)
        for c in ("step_drop", "block_drop")
    )
    check_mean(single[REAL], 0.3, 0.46)
    for row, length in zip(block, ENDS, strict=True):
        places = np.flatnonzero(row[:length])
        assert len(places) == np.round(0.3 * length)
        assert np.ptp(places) == len(places) - 1


@pytest.mark.slow
def test_clipping_and_shifts_are_those_of_numpy():
    x, mean = given("series"), given("series")[REAL].mean(axis=0)
    clipped, shifted = (at_level("series", c, 0.5) for c in ("clipping", "shift"))
    directions = set()
    for i, length in enumerate(ENDS):
        signal = x[i, :length] - mean
        limit = 0.5 * np.abs(signal).max(axis=0)
        expected = np.clip(signal, -limit, limit) + mean
        np.testing.assert_allclose(clipped[i, :length], expected, rtol=1e-4, atol=1e-3)
        steps = int(np.round(0.25 * length))
        gap = np.tile(mean, (steps, 1))
        late = np.concatenate([gap, x[i, : length - steps]])
        early = np.concatenate([x[i, steps:length], gap])
        errors = [np.abs(shifted[i, :length] - e).max() for e in (late, early)]
        assert min(errors) < 1e-2
        directions.add(int(np.argmin(errors)))
    assert directions == {0, 1}


def test_features_get_noise_of_their_deviation_or_values_of_others():
    x = given("vector")
    noise = (at_level("vector", "noise", 0.5) - x) / x.std(axis=0)
    check_mean(noise**2, 0.25, 0.25 * np.sqrt(2))
    dropped = at_level("vector", "feature_drop", 0.4)
    gone = np.isclose(dropped, x.mean(axis=0), atol=1e-5)
    np.testing.assert_array_equal(dropped[~gone], x[~gone])
    check_mean(gone, 0.4, 0.49)
    swapped = at_level("vector", "feature_swap", 1.0)
    assert all((row == x).all(axis=1).any() for row in swapped)
    assert len(np.unique(swapped, axis=0)) > COUNT / 3
    assert (at_level("pet", "feature_drop", 1.0) == [1, 3]).all()


@pytest.mark.parametrize(
    ("modality", "dtype", "kind"),
    [
        (Modality((8, 8, 1)), "float32", "image"),
        (Modality((8, 8, 5)), "float32", "vector"),
        (Modality((48, 24), True), "float32", "series"),
        (_TEXT, "int32", "bytes"),
        (_WORDS, "int32", "tokens"),
        (_PET, "int32", "categories"),
        (Modality((), parts={"nodes": Modality((9, 4), True)}), "float32", "parts"),
    ],
)
def test_kinds_are_inferred(modality, dtype, kind):
    assert infer_corruption_kind(modality, dtype) == kind
