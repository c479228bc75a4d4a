"""Pretrained transformers without PyTorch; what all encoders promise is in the encoders' table."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data.dataset import Modality
from mmjax.parameters import format_path
from mmjax.pretrained import backbones
from mmjax.pretrained.backbones import BERT, CLIPText, CLIPVision, SigLIPText, SigLIPVision, ViT
from mmjax.pretrained.backbones.patches import interpolate_grid, normalize_pixels
from mmjax.pretrained.backbones.transformer_layers import (
    TransformerBlock,
    check_choice,
    scan_layers,
)
from tests.tolerance import bound_difference

SMALL = {"width": 8, "layers": 2, "heads": 2, "hidden": 6}
SMALL_TEXT = {"vocabulary": 9, "positions": 12, **SMALL}
SMALL_IMAGE = {"patch": 4, "image": 8, **SMALL}
TEXT, IMAGE = jnp.ones((1, 5), jnp.int32), jnp.zeros((1, 8, 8, 3))
# The encoder, its names, and an input.
NAMED = {
    "bert": (BERT(**SMALL_TEXT), backbones.bert_names, TEXT),
    "bert pooled": (BERT(**SMALL_TEXT, output="pooled"), backbones.bert_names, TEXT),
    "clip text": (CLIPText(**SMALL_TEXT), backbones.clip_text_names, TEXT),
    "clip vision": (CLIPVision(**SMALL_IMAGE), backbones.clip_vision_names, IMAGE),
    "siglip text": (SigLIPText(**SMALL_TEXT), backbones.siglip_text_names, TEXT),
    "siglip vision": (SigLIPVision(**SMALL_IMAGE), backbones.siglip_vision_names, IMAGE),
    "vit": (ViT(**SMALL_IMAGE, registers=2, output="pooled"), backbones.vit_names, IMAGE),
    "dinov2": (ViT(**SMALL_IMAGE, registers=2, layer_scale=True), backbones.vit_names, IMAGE),
}


@pytest.mark.parametrize("encoder, names, x", NAMED.values(), ids=NAMED)
def test_every_parameter_has_a_name_in_files(encoder, names, x):
    init = functools.partial(encoder.init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), x)["params"]
    paths = {format_path(path) for path, _ in jax.tree.leaves_with_path(params)}
    assert paths <= {rule.path for rule in names(encoder.output)}


class Stack(nn.Module):
    """Two layers whose attention is masked."""

    remat: bool = False

    @nn.compact
    def __call__(self, x, mask, train):
        block = TransformerBlock(heads=2, hidden=6, norm="post", dropout=0.5, name="layers")
        return scan_layers(block, 2, x, mask, remat=self.remat, train=train)


@pytest.mark.slow
def test_a_scan_over_layers_is_the_layers_in_turn_and_remat_changes_nothing():
    x, key = jax.random.normal(jax.random.key(0), (3, 4, 8)), jax.random.key(1)
    mask = jnp.arange(4)[None, None, None] < jnp.array([4, 1, 2])[:, None, None, None]
    params = jax.jit(lambda: Stack().init(key, x, mask, False))()["params"]
    kernel = params["layers"]["attention"]["query"]["kernel"]
    assert kernel.shape == (2, 8, 8) and jnp.abs(kernel[0] - kernel[1]).max() > 0.01

    @jax.jit
    def run(params):
        block, expected = TransformerBlock(heads=2, hidden=6, norm="post"), x
        for i in range(2):
            layer = jax.tree.map(lambda p, i=i: p[i], params["layers"])
            expected = block.apply({"params": layer}, expected, mask, train=False)

        def loss(params, remat):
            y = Stack(remat).apply({"params": params}, x, mask, True, rngs={"dropout": key})
            return jnp.sin(3 * y).sum()

        gradients = [jax.grad(loss)(params, remat) for remat in (False, True)]
        return Stack().apply({"params": params}, x, mask, False), expected, *gradients

    scanned, expected, plain, again = run(params)
    np.testing.assert_allclose(scanned, expected, atol=bound_difference(100))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, atol=bound_difference(500))


def test_interpolation_keeps_constants_and_with_antialias_planes_away_from_the_border():
    """Keys's kernel reproduces polynomials of degree 1 for a = -0.5 only."""
    for antialias in (False, True):
        ones = interpolate_grid(jnp.ones((64, 1)), 5, 12, antialias=antialias)
        np.testing.assert_allclose(ones, 1, atol=bound_difference(16))
    rows, columns = np.mgrid[:8, :8]
    plane = jnp.asarray(2.0 * rows - 3.0 * columns, jnp.float32).reshape(64, 1)
    new_rows, new_columns = np.mgrid[:16, :12]
    expected = 2 * ((new_rows + 0.5) / 2 - 0.5) - 3 * ((new_columns + 0.5) * 8 / 12 - 0.5)
    inside = np.s_[4:-4, 3:-3]
    resized = interpolate_grid(plane, 16, 12, antialias=True).reshape(16, 12)
    np.testing.assert_allclose(resized[inside], expected[inside], atol=bound_difference(16, 40))


def test_pixels_of_both_types_are_normalized_alike():
    pixels = np.array([[[[0, 51, 255]]]], np.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)
    expected = [(0 - 0.1) / 0.5, (0.2 - 0.2) / 0.25, (1 - 0.3) / 0.2]
    for x in (pixels, pixels / np.float32(255)):
        got = normalize_pixels(jnp.asarray(x), mean, std).ravel()
        np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(
    "encoder",
    [BERT(**SMALL_TEXT, first_position=2), CLIPText(**SMALL_TEXT), SigLIPText(**SMALL_TEXT)],
)
def test_a_table_of_another_size_than_the_tokenizer_is_refused(encoder):
    names = tuple("abcdefghi")
    encoder.check(Modality((5,), True, names), "note")
    encoder.clone(vocabulary=9 + 127).check(Modality((5,), True, names), "note")
    for vocabulary in (8, 9 + 128):
        with pytest.raises(ValueError, match=r"'note' has 9 different tokens, .* has \d+ rows"):
            encoder.clone(vocabulary=vocabulary).check(Modality((5,), True, names), "note")
    with pytest.raises(ValueError, match=r"texts of up to 13 tokens, .* longest=1[02]"):
        encoder.check(Modality((13,), True, names), "note")


@pytest.mark.parametrize(
    "encoder, x, message",
    [
        (BERT(**SMALL_TEXT), jnp.zeros((2, 13), jnp.int32), "12 positions but got texts of 13"),
        (BERT(**SMALL_TEXT), jnp.zeros((2, 3)), r"integer tokens \[b time\]"),
        (ViT(**SMALL_IMAGE), jnp.zeros((2, 8, 8, 1)), r"\[b h w 3\] of at least 4x4 pixels"),
        (CLIPVision(**SMALL_IMAGE), jnp.zeros((2, 8, 3, 3)), "at least 4x4 pixels"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(encoder, x, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(functools.partial(encoder.init, train=False), jax.random.key(0), x)


def test_an_unknown_choice_is_refused():
    with pytest.raises(ValueError, match="output is 'first'; use 'all', 'mean'"):
        check_choice("BERT.output", "first", ("all", "mean"))


def test_published_sizes_have_the_published_numbers_of_parameters():
    """The numbers of parameters that the papers and model cards round: 110 M, 22.7 M, 86 M..."""

    def count(encoder, x):
        init = functools.partial(encoder.init, train=False)
        return sum(p.size for p in jax.tree.leaves(jax.eval_shape(init, jax.random.key(0), x)))

    photo = jnp.zeros((1, 224, 224, 3))
    assert round(count(BERT(output="pooled"), TEXT) / 1e6, 1) == 109.5
    assert round(count(backbones.minilm(), TEXT) / 1e6, 1) == 22.6
    assert round(count(backbones.roberta_base(output="pooled"), TEXT) / 1e6, 1) == 124.6
    assert round(count(ViT(), photo) / 1e6, 1) == 85.8
    assert round(count(backbones.dinov2("small"), photo) / 1e6, 1) == 22.1
    assert round(count(backbones.dinov2("giant", registers=4), photo) / 1e6) == 1136
