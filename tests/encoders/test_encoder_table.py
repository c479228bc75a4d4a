"""What every encoder promises, in one table."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export

from mmjax import balance, encoders
from mmjax.encoders import (
    Conv1dEncoder,
    ConvEncoder,
    DeepSetsEncoder,
    EachEncoder,
    Features,
    MaxoutEncoder,
    MLPEncoder,
    PeriodicEncoder,
    PiecewiseLinearEncoder,
    RecurrentEncoder,
    ResidualEncoder,
    TemporalConvEncoder,
    TextEncoder,
    TransformerEncoder,
    Wrap,
    elman,
    gru,
    lstm,
)
from mmjax.fusion import Concat
from mmjax.heads import Regression
from mmjax.kernels.portable import use_plain_kernels
from mmjax.model import Model
from mmjax.pretrained import backbones
from mmjax.pretrained.backbones import (
    BERT,
    CLIPText,
    CLIPVision,
    ConvNeXt,
    ResNet,
    SigLIPText,
    SigLIPVision,
    ViT,
    Wav2Vec2,
    WhisperEncoder,
    token_table,
)
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch
from tests.tolerance import bound_difference

IMAGES = np.random.default_rng(0).uniform(size=(4, 8, 8, 2)).astype(np.float32)
SEQUENCES = np.random.default_rng(1).normal(size=(4, 6, 3)).astype(np.float32)
TEXTS = np.random.default_rng(2).integers(1, 9, size=(4, 6))
LENGTHS = np.array([6, 1, 0, 4], np.int32)

VECTORS = SEQUENCES[:, 0]
EDGES = ((-1.0, -0.2, 0.3, 1.0), (-1.0, 0.1, 1.0), (-0.5, 0.5))

SPECTROGRAMS = np.random.default_rng(3).normal(size=(4, 6, 3, 1)).astype(np.float32)
COLORS = np.random.default_rng(4).uniform(size=(4, 9, 8, 3)).astype(np.float32)
BACKBONES = [v for v in vars(backbones).values() if isinstance(v, type)]
# Sizes of the pretrained transformers: two layers of two heads over 8 channels.
SMALL = {"width": 8, "layers": 2, "heads": 2, "hidden": 6, "dropout": 0.5}
SMALL_TEXT = {"vocabulary": 9, "positions": 12, **SMALL}
SMALL_IMAGE = {"patch": 4, "image": 8, **SMALL}


class Steps(nn.Module):
    """What a researcher might wrap: a vector for every step of time."""

    @nn.compact
    def __call__(self, x, deterministic):
        return nn.Dropout(0.5)(nn.Dense(5)(x), deterministic=deterministic)


TABLE = {
    "conv": (ConvEncoder((3, 5)), IMAGES, None, (1, 20)),
    "conv with a width": (ConvEncoder((3,), width=7), IMAGES, None, (1, 7)),
    "mlp": (MLPEncoder((5, 7), dropout=0.5), IMAGES, None, (1, 7)),
    "elman": (RecurrentEncoder(elman(), 5, dropout=0.5), SEQUENCES, LENGTHS, (1, 5)),
    "gru all": (
        RecurrentEncoder(gru(), 5, layers=2, output="all", dropout=0.5),
        SEQUENCES,
        LENGTHS,
        (6, 5),
    ),
    "lstm both mean": (
        RecurrentEncoder(lstm(), 5, bidirectional=True, output="mean", dropout=0.5),
        SEQUENCES,
        LENGTHS,
        (1, 10),
    ),
    "text": (
        TextEncoder(9, 3, RecurrentEncoder(gru(), 5, bidirectional=True, dropout=0.5)),
        TEXTS,
        LENGTHS,
        (1, 10),
    ),
    "residual": (ResidualEncoder((3, 4)), IMAGES, None, (1, 4)),
    "residual all": (ResidualEncoder((4, 6, 6), blocks=2, output="all"), IMAGES, None, (4, 6)),
    "conv1d": (Conv1dEncoder((5, 4), 3, dropout=0.5), SEQUENCES, LENGTHS, (1, 4)),
    "conv1d all": (
        Conv1dEncoder((5,), 4, dropout=0.5, output="all"),
        SEQUENCES,
        LENGTHS,
        (3, 5),
    ),
    "temporal": (TemporalConvEncoder((5, 5), 2, dropout=0.5), SEQUENCES, LENGTHS, (1, 5)),
    "temporal mean": (
        TemporalConvEncoder((5, 4), 3, dropout=0.5, output="mean"),
        SEQUENCES,
        LENGTHS,
        (1, 4),
    ),
    "transformer": (
        TransformerEncoder(8, 1, 2, dropout=0.5, output="all"),
        SEQUENCES,
        LENGTHS,
        (6, 8),
    ),
    "transformer of patches": (
        TransformerEncoder(8, 1, 2, patch=(2, 2), learned_positions=12, output="class"),
        SPECTROGRAMS,
        LENGTHS,
        (1, 8),
    ),
    "text transformer": (TextEncoder(9, 3, TransformerEncoder(8, 1, 2)), TEXTS, LENGTHS, (1, 8)),
    "maxout": (MaxoutEncoder((5, 7), pieces=3, dropout=0.5), IMAGES, None, (1, 7)),
    "deep sets": (DeepSetsEncoder((5,), (4,), dropout=0.5), SEQUENCES, LENGTHS, (1, 4)),
    "each": (EachEncoder(MLPEncoder((5,), dropout=0.5)), SPECTROGRAMS, LENGTHS, (6, 5)),
    "each mean": (EachEncoder(MLPEncoder((5,)), pool="mean"), SPECTROGRAMS, LENGTHS, (1, 5)),
    "periodic": (PeriodicEncoder(5, 1.0, 4, MLPEncoder((6,))), VECTORS, None, (1, 6)),
    "piecewise": (PiecewiseLinearEncoder(3, EDGES, 8, Features()), VECTORS, None, (3, 8)),
    "features": (Features(), SEQUENCES, LENGTHS, (6, 3)),
    "wrap": (Wrap(Steps()), SEQUENCES, LENGTHS, (6, 5)),
    "bert": (BERT(**SMALL_TEXT, output="all"), TEXTS, LENGTHS, (6, 8)),
    "clip text": (CLIPText(**SMALL_TEXT, projection=5), TEXTS, LENGTHS, (1, 5)),
    "clip vision": (CLIPVision(**SMALL_IMAGE, projection=5), COLORS, None, (1, 5)),
    "siglip text": (SigLIPText(**SMALL_TEXT, projection=5), TEXTS, LENGTHS, (1, 5)),
    "siglip vision": (SigLIPVision(**SMALL_IMAGE), COLORS, None, (1, 8)),
    "vit": (
        ViT(**SMALL_IMAGE, registers=2, layer_scale=True, gated=True, output="all"),
        COLORS,
        None,
        (7, 8),
    ),
    "wav2vec2": (
        # One sample per token, since the table has sequences of one step.
        Wav2Vec2(
            **SMALL, filters=(4,), kernels=(1,), strides=(1,), position_groups=2, output="all"
        ),
        SEQUENCES[:, :, :1],
        LENGTHS,
        (6, 8),
    ),
    "whisper": (WhisperEncoder(8, 2, 2, 6, 0.5, output="all"), SEQUENCES, LENGTHS, (3, 8)),
    "convnext": (ConvNeXt((1, 1), (4, 6), 2, output="all"), COLORS, None, (4, 6)),
    "convnext 2": (ConvNeXt((1,), (4,), 2, response_norm=True), COLORS, None, (1, 4)),
    "token table": (token_table(9, 3, normalize=True), TEXTS, LENGTHS, (1, 3)),
}
# Second forms of what the table has already, and the deepest; each compiles ten programs.
SLOW = (
    *("residual all", "conv1d all", "temporal mean", "transformer of patches", "text transformer"),
    *("residual", "temporal", "transformer", "each mean"),
    *("bert", "clip text", "clip vision", "siglip text", "siglip vision", "vit"),
    *("wav2vec2", "whisper", "convnext", "convnext 2"),
)


def cases(names):
    slow = {True: pytest.mark.slow, False: ()}
    return pytest.mark.parametrize(
        "encoder, x, length, shape",
        [pytest.param(*TABLE[n], id=n.replace(" ", "-"), marks=slow[n in SLOW]) for n in names],
    )


CASES = cases(TABLE)


@functools.partial(jax.jit, static_argnums=0)
def apply(encoder, params, x, length):
    return encoder.apply(params, x, length, train=False)


def ready(encoder, x, length):
    x, length = jnp.asarray(x), None if length is None else jnp.asarray(length)
    return x, length, random_params(encoder, x, length)


def random_params(encoder, x, length, seed=0):
    rng = np.random.default_rng(seed)
    init = functools.partial(encoder.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), x, length)
    return jax.tree.map(lambda p: jnp.asarray(0.3 * rng.normal(size=p.shape), p.dtype), shapes)


@CASES
def test_shape_and_mask(encoder, x, length, shape):
    x, length, params = ready(encoder, x, length)
    values, mask = apply(encoder, params, x, length)
    assert values.shape == (4, *shape) and values.dtype == jnp.float32
    if shape[0] == 1 or length is None:
        assert mask.shape == (4, shape[0]) and mask.all()
    else:
        left = np.ceil(LENGTHS * shape[0] / 6)
        np.testing.assert_array_equal(mask, np.arange(shape[0]) < left[:, None])
    assert jnp.isfinite(values).all() and jnp.abs(values).max() > 1e-3


@CASES
def test_an_example_does_not_feel_its_neighbours(encoder, x, length, shape):
    x, length, params = ready(encoder, x, length)
    together = apply(encoder, params, x, length).values
    for i in range(4):
        one = None if length is None else length[i : i + 1]
        alone = apply(encoder, params, x[i : i + 1], one).values
        np.testing.assert_allclose(together[i], alone[0], atol=bound_difference(100))


DROPOUT = ["text", "wrap"] + [n for n, case in TABLE.items() if getattr(case[0], "dropout", 0)]


@cases(DROPOUT)
def test_dropout_only_while_training(encoder, x, length, shape):
    x, length, params = ready(encoder, x, length)

    @functools.partial(jax.jit, static_argnums=1)
    def run(seed, train):
        keys = {"dropout": jax.random.key(seed)}
        return encoder.apply(params, x, length, train=train, rngs=keys).values

    np.testing.assert_array_equal(run(1, False), run(2, False))
    np.testing.assert_array_equal(run(1, True), run(1, True))
    assert jnp.abs(run(1, True) - run(2, True)).max() > 1e-3
    # Where dropout comes last its zeros show; these end in a norm, a sum, a mean or a projection.
    end_otherwise = TransformerEncoder | TemporalConvEncoder | Conv1dEncoder
    if not isinstance(encoder, end_otherwise) and type(encoder) not in BACKBONES:
        assert (run(1, True) == 0).mean() > (run(1, False) == 0).mean() + 0.1


@CASES
def test_bfloat16_parameters_and_inputs_give_bfloat16(encoder, x, length, shape):
    x, length, params = ready(encoder, x, length)
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    x16 = x if jnp.issubdtype(x.dtype, jnp.integer) else x.astype(jnp.bfloat16)
    got = apply(encoder, half, x16, length).values
    assert got.dtype == jnp.bfloat16
    expected = apply(encoder, params, x, length).values
    np.testing.assert_allclose(got.astype(jnp.float32), expected, atol=0.05)


# Those that share their layers with others; the comparison with transformers has them too.
SAME_LAYERS = ("clip text", "clip vision", "siglip text", "siglip vision", "convnext")


@cases([name for name in TABLE if name not in ("features", *SAME_LAYERS)])
def test_every_parameter_gets_a_finite_gradient_under_jit_scan_and_vmap(encoder, x, length, shape):
    x, length, _ = ready(encoder, x, length)
    seeds = [random_params(encoder, x, length, seed) for seed in range(3)]

    def step(params, _):
        def loss(params):
            return jnp.sin(3 * encoder.apply(params, x, length, train=False).values).sum()

        grads = jax.grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads), grads

    def train(params):
        return jax.lax.scan(step, params, None, length=2)

    together = jax.jit(jax.vmap(train))(jax.tree.map(lambda *p: jnp.stack(p), *seeds))
    first = jax.jit(step)(seeds[1], None)
    second = jax.jit(step)(first[0], None)
    alone = second[0], jax.tree.map(lambda *g: jnp.stack(g), first[1], second[1])
    for many, one in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(many[1], one, rtol=1e-5, atol=bound_difference(1000))
    for gradient in jax.tree.leaves(alone[1]):
        assert jnp.isfinite(gradient).all() and jnp.abs(gradient).max() > 0


SEQUENCE_CASES = cases([name for name, case in TABLE.items() if case[2] is not None])


@SEQUENCE_CASES
def test_neither_content_nor_amount_of_padding_matters(encoder, x, length, shape):
    x, length, params = ready(encoder, x, length)

    @jax.jit
    def run(x):
        def loss(params):
            tokens = encoder.apply(params, x, length, train=False)
            return jnp.sin(tokens.values).sum(), tokens

        return jax.grad(loss, has_aux=True)(params)

    other = 8 if jnp.issubdtype(x.dtype, jnp.integer) else 1e3
    outside = jnp.arange(6)[None] >= length[:, None]
    changed = jnp.where(outside.reshape(4, 6, *[1] * (x.ndim - 2)), other, x).astype(x.dtype)
    longer = jnp.concatenate([changed, changed], axis=1)
    assert jnp.abs(changed - x).max() > 0
    gradients, (values, mask) = run(x)
    n = values.shape[1]
    for padded in (changed, longer):
        got_gradients, (got, got_mask) = run(padded)
        np.testing.assert_allclose(got[:, :n], values, atol=bound_difference(100))
        np.testing.assert_array_equal(got_mask[:, :n], mask)
        assert not got_mask[:, n:].any()
        for a, b in zip(jax.tree.leaves(got_gradients), jax.tree.leaves(gradients), strict=True):
            np.testing.assert_allclose(a, b, atol=bound_difference(500))


@SEQUENCE_CASES
def test_a_sequence_is_that_sequence_cut_at_its_length(encoder, x, length, shape):
    x, length, params = ready(encoder, x, length)
    values = apply(encoder, params, x, length).values
    for i in (1, 3):
        cut = apply(encoder, params, x[i : i + 1, : length[i]], None).values
        np.testing.assert_allclose(values[i, : cut.shape[1]], cut[0], atol=bound_difference(100))


@SEQUENCE_CASES
def test_an_empty_sequence_gives_zeros(encoder, x, length, shape):
    x, length, params = ready(encoder, x, length)
    assert (apply(encoder, params, x, length).values[2] == 0).all()


def test_every_encoder_and_cell_is_in_the_table():
    listed = [encoder for encoder, *_ in TABLE.values()]
    listed += [e.encoder for e in listed if isinstance(e, TextEncoder)]
    cells = {e.cell.step.__qualname__ for e in listed if isinstance(e, RecurrentEncoder)}
    # GraphEncoder takes several arrays: it has tests of its own.
    for name in set(encoders.__all__) - {"Cell", "GraphEncoder", "compute_bin_edges"}:
        public = getattr(encoders, name)
        if isinstance(public, type):
            assert public in map(type, listed), name
        else:
            assert public().step.__qualname__ in cells, name
    # In training, an example of a ResNet depends on the others: it has tests of its own.
    assert {*map(type, listed), ResNet} >= set(BACKBONES)


@pytest.mark.slow
@CASES
def test_garbage_in_what_is_missing_changes_no_training_step(encoder, x, length, shape):
    """NaN, or ids beyond the vocabulary, behind a length or where an input is absent."""
    present = np.array([True, True, True, False])
    real = present if length is None else present[:, None] & (np.arange(6) < length[:, None])
    garbage = 10**6 if x.dtype.kind == "i" else np.nan
    spoilt = np.where(real.reshape(*real.shape, *[1] * (x.ndim - real.ndim)), x, garbage)
    assert not np.array_equal(spoilt, x)

    def batch(x):
        lengths = {} if length is None else {"x": length}
        y, labeled = np.arange(4, dtype=np.float32), np.ones(4, bool)
        whole = Batch({"x": x}, {"x": present}, lengths, {"y": y}, {"y": labeled})
        return jax.tree.map(jnp.asarray, whole)

    model = Model({"x": encoder}, Concat(), {"y": Regression()})
    optimizer, balancer = optax.sgd(0.1), balance.equal()
    clean = batch(x)
    init = jax.jit(lambda key: init_state(model, optimizer, balancer, clean, key))
    state = init(jax.random.key(0))
    step = jax.jit(make_train_step(model, optimizer, balancer))
    good, bad = step(state, clean), step(state, batch(spoilt.astype(x.dtype)))
    for a, b in zip(jax.tree.leaves(good), jax.tree.leaves(bad), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)
            assert np.isfinite(a).all()
    moved = zip(jax.tree.leaves(good[0].params), jax.tree.leaves(state.params), strict=True)
    assert any(bool((a != b).any()) for a, b in moved)


@pytest.mark.slow
@cases(TABLE)
def test_an_encoder_is_traced_for_any_number_of_examples(encoder, x, length, shape):
    """Exports need it: nothing asks for the number of examples as a Python integer."""
    arguments = (x,) if length is None else (x, length)
    variables = jax.eval_shape(
        functools.partial(encoder.init, train=False), jax.random.key(0), *arguments
    )
    (batch,) = export.symbolic_shape("batch")
    structs = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((batch, *a.shape[1:]), jnp.asarray(a).dtype), arguments
    )
    with use_plain_kernels():
        tokens = jax.eval_shape(functools.partial(encoder.apply, train=False), variables, *structs)
    assert tokens.values.shape == (batch, *shape)
