"""Waveforms, convolutional networks and token tables; the encoders' table has what all promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.pretrained.backbones import (
    ConvNeXt,
    ResNet,
    Wav2Vec2,
    WhisperEncoder,
    resnet18,
    resnet50,
    token_table,
)
from tests.tolerance import bound_difference

IMAGES = np.random.default_rng(0).uniform(size=(2, 17, 22, 3)).astype(np.float32)
WAVES = np.random.default_rng(1).normal(0.5, 2.0, size=(4, 90)).astype(np.float32)
WAVE_LENGTHS = np.array([90, 47, 0, 11], np.int32)  # 12 samples make the first token

wav2vec2 = functools.partial(
    Wav2Vec2, 8, 2, 2, 12, (4, 6), (6, 3), (3, 2), position_kernel=4, position_groups=2
)
WAVE_ENCODERS = {
    "group": wav2vec2(output="all"),
    "layer": wav2vec2(conv_norm="layer", conv_bias=True, pre_norm=True, output="all"),
}
IMAGE_ENCODERS = {
    "resnet": ResNet((1, 2), (4, 8), stem=4, output="all"),
    "bottleneck": ResNet((2,), (8,), True, stem=4),
    "convnext": ConvNeXt((2, 1), (4, 8), output="all"),
}


@functools.cache
def make_variables(encoder, shape):
    """Makes positive variables, so that variances are, and no parameter is idle."""
    init = functools.partial(encoder.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros(shape))
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda p: jnp.asarray(rng.uniform(0, 0.6, p.shape), p.dtype), shapes)


@functools.partial(jax.jit, static_argnums=0)
def apply(encoder, variables, x, length=None):
    return encoder.apply(variables, x, length, train=False)


SLOW_LAYER = pytest.param("layer", marks=pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["group", SLOW_LAYER])
def test_tokens_are_those_of_whole_windows_before_the_end(name):
    """By strides over the whole file; windows that reach into the padding give no token."""
    encoder = WAVE_ENCODERS[name]
    variables = make_variables(encoder, WAVES.shape)
    values, mask = apply(encoder, variables, WAVES, WAVE_LENGTHS)
    np.testing.assert_array_equal(mask.sum(axis=1), [14, 6, 0, 0])
    assert (jnp.where(mask[:, :, None], 0, values) == 0).all()
    spoilt = np.where(np.arange(90) < WAVE_LENGTHS[:, None], WAVES, np.nan)
    padded = np.concatenate([spoilt, spoilt], axis=1)[:, :, None]
    longer, longer_mask = apply(encoder, variables, padded, WAVE_LENGTHS)
    np.testing.assert_allclose(longer[:, :14], values, atol=bound_difference(200))
    assert not longer_mask[:, 14:].any()
    cut = apply(encoder, variables, WAVES[1:2, :47]).values[0]
    np.testing.assert_allclose(values[1, :6], cut, atol=bound_difference(200))


@pytest.mark.slow
def test_waveforms_of_any_offset_and_volume_give_the_same_tokens_if_standardized():
    encoder = WAVE_ENCODERS["layer"]
    variables = make_variables(encoder, WAVES.shape)
    plain = apply(encoder, variables, WAVES).values
    np.testing.assert_allclose(apply(encoder, variables, 3 * WAVES + 1).values, plain, atol=1e-4)
    raw = apply(encoder.clone(standardize=False), variables, 3 * WAVES + 1).values
    assert jnp.abs(raw - plain).max() > 0.01


@pytest.mark.parametrize("name", IMAGE_ENCODERS)
def test_images_of_odd_sizes_and_of_8_bits(name):
    encoder = IMAGE_ENCODERS[name]
    variables = make_variables(encoder, IMAGES.shape)
    pixels = np.round(255 * IMAGES).astype(np.uint8)
    values, mask = apply(encoder, variables, pixels)
    # 17 x 22 pixels: 9 x 11, 5 x 6, 3 x 3 of padded strides; 4 x 5, 2 x 2 of whole patches.
    assert (
        values.shape == {"resnet": (2, 9, 8), "bottleneck": (2, 1, 8), "convnext": (2, 4, 8)}[name]
    )
    assert mask.all()
    alone = apply(encoder, variables, pixels[1:].astype(np.float32) / 255).values
    np.testing.assert_allclose(alone[0], values[1], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "convnext"])
def test_recomputing_blocks_changes_neither_gradients_nor_statistics(name):
    encoder = IMAGE_ENCODERS[name]
    params = make_variables(encoder, IMAGES.shape)

    def compute_gradient(encoder):
        def loss(params):
            call = functools.partial(encoder.apply, train=True, mutable=["batch_stats"])
            tokens, updated = call(params, jnp.asarray(IMAGES))
            return jnp.sin(tokens.values).sum(), updated

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    plain, again = compute_gradient(encoder), compute_gradient(encoder.clone(remat=True))
    assert jax.tree.structure(plain) == jax.tree.structure(again)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        # Sums over at most 9 * 11 * 2 pixels, through some ten layers.
        scale = float(jnp.abs(a).max())
        np.testing.assert_allclose(a, b, atol=bound_difference(2000, scale))


@pytest.mark.slow
def test_batch_norm_updates_its_averages_in_training_unless_frozen():
    encoder = ResNet((1,), (4,), stem=4)
    variables = make_variables(encoder, IMAGES.shape)
    images = jnp.asarray(IMAGES)
    train = functools.partial(encoder.apply, variables, images, train=True)
    _, updated = train(mutable=["batch_stats"])
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), updated["batch_stats"], variables["batch_stats"]
    )
    assert min(jax.tree.leaves(moved)) > 0
    frozen = encoder.clone(norm="frozen")
    values = frozen.apply(variables, images, train=True).values
    np.testing.assert_array_equal(values, encoder.apply(variables, images, train=False).values)


@pytest.mark.slow
def test_stochastic_depth_skips_the_last_block_of_some_examples():
    encoder = ConvNeXt((1, 1), (4, 4), drop_path=0.5)
    x = jnp.repeat(jnp.asarray(IMAGES[:1]), 32, axis=0)
    variables = make_variables(encoder, x.shape)
    rngs = {"dropout": jax.random.key(0)}
    values = encoder.apply(variables, x, train=True, rngs=rngs).values[:, 0]
    assert len(np.unique(np.asarray(values).round(4), axis=0)) == 2


@pytest.mark.slow
def test_a_normalized_text_has_length_1_and_an_empty_one_is_zero_with_finite_gradients():
    encoder, text = token_table(9, 4, normalize=True), jnp.array([[1, 2, 8], [3, 8, 8], [8, 8, 8]])
    length = jnp.array([2, 1, 0])

    def embed(table):
        params = {"params": {"embed": {"embedding": table}}}
        return encoder.apply(params, text, length, train=False).values[:, 0]

    table = jnp.asarray(np.random.default_rng(0).normal(size=(9, 4)), jnp.float32)
    mean = (table[1] + table[2]) / 2
    expected = jnp.stack([mean / jnp.linalg.norm(mean), table[3] / jnp.linalg.norm(table[3])])
    np.testing.assert_allclose(embed(table)[:2], expected, atol=1e-6)
    assert (embed(table)[2] == 0).all()
    gradient = jax.grad(lambda table: jnp.sin(3 * embed(table)).sum())(table)
    assert jnp.isfinite(gradient).all() and (gradient[8] == 0).all()


def test_pixels_do_not_turn_bfloat16_networks_into_float32():
    for name in ("bottleneck", "convnext"):
        encoder = IMAGE_ENCODERS[name]
        variables = make_variables(encoder, IMAGES.shape)
        half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), variables["params"])
        call = functools.partial(encoder.apply, train=False)
        tokens = jax.eval_shape(call, {**variables, "params": half}, IMAGES)
        assert tokens.values.dtype == jnp.bfloat16


@pytest.mark.slow
def test_published_sizes_have_the_published_numbers_of_parameters():
    def count(encoder, x):
        init = functools.partial(encoder.init, train=False)
        params = jax.eval_shape(init, jax.random.key(0), x)["params"]
        return sum(p.size for p in jax.tree.leaves(params))

    # Those of torchvision's models less their classifiers of 1000 classes.
    photo = jnp.zeros((1, 64, 64, 3))
    assert count(resnet18(), photo) == 11_689_512 - 513 * 1000
    assert count(resnet50(), photo) == 25_557_032 - 2049 * 1000
    assert count(ConvNeXt(), photo) == 28_589_128 - 769 * 1000
    assert round(count(Wav2Vec2(), jnp.zeros((1, 400))) / 1e6, 1) == 94.4
    assert round(count(WhisperEncoder(), jnp.zeros((1, 3000, 80))) / 1e6, 1) == 20.6


@pytest.mark.parametrize(
    ("encoder", "shape", "message"),
    [
        (wav2vec2(), (2, 11), "at least 12 samples"),
        (wav2vec2(), (2, 90, 2), "average the channels"),
        (WhisperEncoder(8, 1, 2, 10), (2, 21, 5), "has positions for 20"),
        (ResNet((1,), (4,)), (2, 8, 8, 1), r"images \[b h w 3\]"),
        (ConvNeXt((1, 1), (4, 4)), (2, 7, 9, 3), "at least 8x8"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(encoder, shape, message):
    with pytest.raises(ValueError, match=message):
        encoder.init(jax.random.key(0), jnp.zeros(shape), train=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Wav2Vec2(filters=(4,)), "one entry per convolution"),
        (lambda: ResNet((2, 2)), "one entry"),
        (lambda: ConvNeXt((1, 0), (4, 4)), "at least 1 per stage"),
        (lambda: WhisperEncoder(width=7), "must be even"),
    ],
)
def test_settings_that_contradict_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
