"""Augmentations change what they say, and nothing that is absent or padding."""

import fiddle as fdl
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.config import apply_setting
from mmjax.data.augment import (
    chain,
    gaussian_noise,
    make_example_augmentation,
    shift_and_crop,
    spec_augment,
    token_dropout,
)
from mmjax.data.modality_dropout import drop_modalities
from mmjax.experiment import Experiment
from mmjax.types import Batch

DRAWS = 4000


def draw(augment, x, length=None, draws=DRAWS):
    """Many augmentations of one input, as a NumPy array [draws, ...]."""
    x = jnp.asarray(x)
    length = None if length is None else jnp.int32(length)
    keys = jax.random.split(jax.random.key(0), draws)
    return np.asarray(jax.jit(jax.vmap(lambda key: augment(key, x, length)))(keys))


@pytest.mark.parametrize("shape", [(5, 7), (6, 4, 3)])
def test_a_shifted_image_is_a_window_of_the_padded_one(shape):
    """Every one of the 25 shifts by up to 2 comes up, each about as often."""
    image = np.random.default_rng(0).integers(1, 256, shape).astype(np.uint8)
    found = draw(shift_and_crop(2), image)
    assert found.dtype == np.uint8
    padded = np.pad(image, [(2, 2), (2, 2)] + [(0, 0)] * (len(shape) - 2))
    windows = {
        padded[i : i + shape[0], j : j + shape[1]].tobytes(): (i, j)
        for i in range(5)
        for j in range(5)
    }
    assert len(windows) == 25
    counts = np.zeros((5, 5))
    for one in found:
        counts[windows[one.tobytes()]] += 1
    assert np.abs(counts - DRAWS / 25).max() < 5 * np.sqrt(DRAWS / 25)


def blocks(line):
    """(start, stop) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line, [0]])))
    return list(zip(edges[::2], edges[1::2], strict=True))


def test_a_time_mask_is_a_block_inside_the_length_of_uniform_width_and_place():
    """Widths 0 to 4 of 9 true frames; a mask of 2 starts anywhere from 0 to 7."""
    x = 1 + np.random.default_rng(0).random((12, 3)).astype(np.float32)
    found = draw(spec_augment(time=4, frequency=0), x, length=9)
    masked = (found == 0).all(axis=2)
    np.testing.assert_array_equal(np.where(masked[..., None], 0, x), found)
    assert not masked[:, 9:].any()
    runs = [blocks(line) for line in masked]
    assert max(map(len, runs)) == 1
    widths = np.bincount([r[0][1] - r[0][0] if r else 0 for r in runs], minlength=5)
    assert len(widths) == 5 and np.abs(widths - DRAWS / 5).max() < 5 * np.sqrt(DRAWS / 5)
    starts = np.bincount([r[0][0] for r in runs if r and r[0][1] - r[0][0] == 2], minlength=8)
    assert len(starts) == 8 and np.abs(starts - widths[2] / 8).max() < 5 * np.sqrt(widths[2] / 8)


def test_frequency_masks_hide_their_share_of_the_bands():
    """One mask of uniform width 0 to 6 hides 3 of 10 bands on average; two are a union."""
    x = np.ones((4, 10), np.float32)
    one = draw(spec_augment(time=0, frequency=6), x) == 0
    assert (one == one[:, :1]).all()  # all frames alike
    assert one.mean() == pytest.approx(0.3, abs=5 * 0.2 / np.sqrt(DRAWS))
    assert {len(blocks(line)) for line in one[:, 0]} == {0, 1}
    two = draw(spec_augment(time=0, frequency=6, frequency_masks=2), x) == 0
    assert {len(blocks(line)) for line in two[:, 0]} == {0, 1, 2}
    none = draw(spec_augment(time=9, time_masks=0, frequency=9, frequency_masks=0), x, draws=5)
    assert (none == 1).all()


def test_time_share_bounds_a_mask_by_the_true_length():
    """At most 0.5 of 5 frames: 2, though `time` allows 100; the value is the one asked for."""
    augment = spec_augment(time=100, frequency=0, time_share=0.5, value=-7.0)
    masked = (draw(augment, np.ones((20, 2), np.float32), length=5) == -7).all(axis=2)
    assert masked.sum(axis=1).max() == 2
    whole = spec_augment(time=100, frequency=0)
    masked = draw(whole, np.ones((20, 2), np.float32), length=5) == 0
    assert masked.all(axis=2).sum(axis=1).max() == 5


def test_token_dropout_replaces_its_share():
    tokens = np.arange(1, 21, dtype=np.int32)
    found = draw(token_dropout(0.3, token=99), tokens)
    assert found.dtype == np.int32
    gone = found == 99
    np.testing.assert_array_equal(np.where(gone, tokens, found), np.tile(tokens, (DRAWS, 1)))
    share = np.sqrt(0.3 * 0.7 / DRAWS)
    assert np.abs(gone.mean(axis=0) - 0.3).max() < 5 * share
    pairs = (gone[:, :-1] & gone[:, 1:]).mean(axis=0)  # independent of each other
    assert np.abs(pairs - 0.09).max() < 5 * share


def test_noise_has_its_scale_and_a_chain_does_one_after_the_other():
    x = np.arange(10, dtype=np.float32)
    noise = draw(gaussian_noise(0.5), x) - x
    assert noise.std() == pytest.approx(0.5, rel=0.03)
    assert np.abs(noise.mean()) < 5 * 0.5 / np.sqrt(noise.size)
    twice = draw(chain(gaussian_noise(0.5), gaussian_noise(0.5)), x) - x
    assert twice.std() == pytest.approx(0.5 * np.sqrt(2), rel=0.03)  # draws of their own
    text = np.ones(6, np.int32)
    ordered = draw(chain(token_dropout(1.0, token=3), token_dropout(1.0, token=5)), text, draws=2)
    assert (ordered == 5).all()


def example(rng):
    """One example: image, text with a length, spectrogram with a length."""
    return Batch(
        inputs={
            "image": rng.normal(size=(6, 6)).astype(np.float32),
            "text": rng.integers(1, 9, 10).astype(np.int32),
            "sound": rng.normal(size=(12, 5)).astype(np.float32),
        },
        present={m: np.array(True) for m in ("image", "text", "sound")},
        lengths={"text": np.int32(6), "sound": np.int32(7)},
        targets={"y": np.int32(3)},
        labeled={"y": np.array(True)},
    )


ALL = {
    "image": chain(shift_and_crop(3), gaussian_noise(1.0)),
    "text": token_dropout(0.7),
    "sound": chain(spec_augment(time=5, frequency=3), gaussian_noise(1.0)),
}


def test_padding_and_absent_inputs_stay_and_all_else_is_untouched():
    batch = example(np.random.default_rng(0))
    masks = np.array(np.meshgrid(*[[True, False]] * 3)).reshape(3, -1).T.repeat(20, axis=0)
    apply = make_example_augmentation(ALL)

    def one(key, here):
        present = dict(zip(("image", "text", "sound"), here, strict=True))
        return apply(key, batch._replace(present=present))

    found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), len(masks)), masks)
    real = {"image": np.ones(6), "text": np.arange(10) < 6, "sound": np.arange(12) < 7}
    for i, m in enumerate(real):
        new, old = np.asarray(found.inputs[m]), batch.inputs[m]
        changed = (new != old).reshape(len(masks), len(real[m]), -1).any(axis=2)
        assert not changed[~masks[:, i]].any()
        assert not changed[:, real[m] == 0].any()
        assert changed[masks[:, i]].any(axis=0)[real[m] == 1].all()
        assert (found.present[m] == masks[:, i]).all()
    assert (found.lengths["text"] == 6).all() and (found.targets["y"] == 3).all()


def test_a_modalitys_draws_do_not_depend_on_the_others():
    batch = example(np.random.default_rng(0))
    alone = batch._replace(
        inputs={"sound": batch.inputs["sound"]}, present={"sound": batch.present["sound"]}
    )
    key = jax.random.key(5)
    both = make_example_augmentation(ALL)(key, batch).inputs
    np.testing.assert_array_equal(
        both["sound"],
        make_example_augmentation({"sound": ALL["sound"]})(key, alone).inputs["sound"],
    )
    other = make_example_augmentation({"image": ALL["image"], "sound": ALL["image"]})(
        key, batch
    ).inputs
    assert not np.array_equal(other["image"] - batch.inputs["image"], other["sound"][:6, :5])


@pytest.fixture(scope="module")
def dropped():
    """(present, rates, draws) -> what is left [draws, m]; compiled once for three modalities."""

    def one(key, present, rates):
        here = {m: present[i] for i, m in enumerate("abc")}
        # Rates are plain numbers in use; here a table of them shares one program.
        kept = [drop_modalities(key, here, dict(zip("abc", r, strict=True))) for r in RATES]
        return jnp.array([[k[m] for m in "abc"] for k in kept])[rates]

    compiled = jax.jit(jax.vmap(one, (0, None, None)))

    def run(present, rates, draws=DRAWS, seed=0):
        keys = jax.random.split(jax.random.key(seed), draws)
        return np.asarray(compiled(keys, jnp.array(present), RATES.index(rates)))

    return run


RATES = [(0.4, 0.4, 0.4), (0.9, 0.5, 0.2), (1.0, 1.0, 1.0), (0.0, 0.7, 1.0), (0.0, 0.0, 0.0)]


@pytest.mark.parametrize("present", [(1, 1, 1), (1, 0, 1), (0, 1, 0)])
@pytest.mark.parametrize("rates", RATES)
def test_modalities_drop_at_their_rates_but_never_all(dropped, present, rates):
    """Alone they would all go with probability q, the product of the rates of the n present.

    Then one of them stays, each alike: modality m is left with probability 1 - p_m + q / n.
    """
    present, rates = np.array(present, bool), np.array(rates)
    left = dropped(present, tuple(rates.tolist()))
    assert left.any(axis=1).all() and not left[:, ~present].any()
    q, n = np.prod(rates[present]), present.sum()
    expected = 1 - rates[present] + q / n
    error = np.sqrt(expected * (1 - expected) / DRAWS)
    assert (np.abs(left[:, present].mean(axis=0) - expected) <= 5 * error + 1e-9).all()
    # Independent: the chance that all present stay is the product of the chances of each.
    stay = np.prod(1 - rates[present]) + (q if n == 1 else 0)
    assert left[:, present].all(axis=1).mean() == pytest.approx(stay, abs=5 / np.sqrt(DRAWS))


@settings(max_examples=40)
@given(
    present=st.tuples(*[st.booleans()] * 3).filter(any),
    rates=st.sampled_from(RATES),
    seed=st.integers(0, 2**31),
)
def test_no_example_ever_loses_everything(dropped, present, rates, seed):
    left = dropped(present, rates, DRAWS, seed)
    assert left.any(axis=1).all()
    assert not left[:, ~np.array(present)].any()


@pytest.mark.parametrize("by_modality", [False, True])
def test_a_traced_rate_drops_what_the_plain_one_drops(by_modality):
    """One program for all rates, 0 and 1 among them, gives each one's own draws."""
    present = {"a": jnp.array(True), "b": jnp.array(True), "c": jnp.array(False)}
    keys = jax.random.split(jax.random.key(0), 200)

    def of(rate):
        rates = {"a": rate, "b": 0.5} if by_modality else rate
        return jax.vmap(lambda key: drop_modalities(key, present, rates))(keys)

    plain = (0.0, 0.3, 1.0)
    traced = jax.jit(jax.vmap(of))(jnp.array(plain))
    for i, rate in enumerate(plain):
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y), traced, of(rate))
    assert np.asarray(traced["a"][0]).all() and not np.asarray(traced["a"][1]).all()


def test_nothing_to_do_is_none():
    assert make_example_augmentation({}, 0.0) is None
    assert make_example_augmentation({}, {}) is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: shift_and_crop(-1), "pixels is -1"),
        (lambda: spec_augment(time=-2, frequency=1), "time is -2"),
        (lambda: spec_augment(time=2, frequency=1, time_share=2.0), "time_share is 2.0"),
        (lambda: token_dropout(1.5), "rate is 1.5"),
        (lambda: gaussian_noise(-1.0), "scale is -1"),
        (lambda: shift_and_crop(1)(jax.random.key(0), jnp.ones(3), None), r"but got \[3\]"),
        (lambda: token_dropout(0.1)(jax.random.key(0), jnp.ones(3), None), r"float32\[3\]"),
        (
            lambda: gaussian_noise(0.1)(jax.random.key(0), jnp.ones(3, jnp.uint8), None),
            "but got uint8",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_an_augmentation_that_changes_the_shape_is_refused_by_name():
    apply = make_example_augmentation({"image": lambda key, x, length: x[:3]})
    with pytest.raises(ValueError, match=r"'image' turned float32\[6, 6\] into float32\[3, 6\]"):
        apply(jax.random.key(0), example(np.random.default_rng(0)))


def test_an_experiment_takes_them_and_refuses_bad_rates(toy):
    experiment = toy.experiment(augment={"vector": gaussian_noise(0.1)}, modality_dropout=0.2)
    assert set(experiment.augment) == {"vector"}
    with pytest.raises(ValueError, match=r"modality_dropout is 1\.2; it must be between 0 and 1"):
        toy.experiment(modality_dropout=1.2)
    with pytest.raises(ValueError, match=r"modality_dropout\['vector'\] is -0\.1"):
        toy.experiment(modality_dropout={"vector": -0.1})


def test_the_command_line_sets_them():
    config = fdl.Config(Experiment)
    config = apply_setting(config, "augment.image=data.augment.shift_and_crop(2)")
    config = apply_setting(config, "augment.text=data.augment.token_dropout(rate=0.1)")
    config = apply_setting(config, "modality_dropout=0.2")
    assert config.modality_dropout == 0.2
    assert config.augment == {
        "image": fdl.Config(shift_and_crop, 2),
        "text": fdl.Config(token_dropout, rate=0.1),
    }
