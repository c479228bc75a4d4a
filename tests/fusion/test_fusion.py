"""What every fusion promises, in one table, and each against its formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from mmjax import fusion as fusions
from mmjax.fusion import (
    ActionMAE,
    AttentionPool,
    Bottleneck,
    Concat,
    CrossModal,
    EarlyTransformer,
    Embrace,
    FiLM,
    Gated,
    HEALNet,
    Hide,
    Late,
    LowRankTensor,
    Max,
    Mean,
    MultiModN,
    Multiplicative,
    PatternExperts,
    Perceiver,
    ProductOfExperts,
    Prompted,
    ShaSpec,
    Sum,
    Tensor,
    pool,
)
from mmjax.types import Branches, Tokens
from tests.tolerance import bound_difference

TABLE = {
    "concat": Concat(),
    "sum": Sum(4),
    "mean": Mean(4),
    "max": Max(4),
    "gated": Gated(4),
    "film": FiLM(4),
    "film of the text": FiLM(4, modulated="text"),
    "tensor": Tensor(2),
    "low rank": LowRankTensor(4, rank=3),
    "matrix": Multiplicative(4),
    "vector": Multiplicative(4, "vector"),
    "scalar": Multiplicative(4, "scalar"),
    "attention": AttentionPool(4, heads=2),
    "early": EarlyTransformer(4, heads=2),
    "cross modal": CrossModal(4, layers=1, heads=2),
    "bottleneck": Bottleneck(4, bottlenecks=2, separate=1, heads=2),
    "perceiver": Perceiver(4, latents=3, rounds=2, heads=2),
    "heal net": HEALNet(4, latents=3, layers=2, heads=2),
    "embrace": Embrace(4),
    "product of experts": ProductOfExperts(4),
    "late": Late(4),
    "late learned": Late(4, learned=True),
    "late joint": Late(4, joint=True),
    "sha spec": ShaSpec(4),
    "multi mod n": MultiModN(4),
    "prompted": Prompted(4, prompts=2, layers=2, prompted_layers=1, heads=2),
    "pattern experts": PatternExperts(4, heads=2),
    "action mae": ActionMAE(4, memory=2, heads=2),
    "hide": Hide(Mean(4)),
}
DEEP = ("early", "cross modal", "bottleneck", "perceiver", "film of the text", "vector", "scalar")
DEEP += ("heal net", "prompted", "action mae", "hide", "late joint", "pattern experts")


def marked(names):
    """The fusions by these names; the deep ones and second forms are slow to compile."""
    cases = [
        pytest.param(TABLE[n], id=n.replace(" ", "-"), marks=pytest.mark.slow if n in DEEP else ())
        for n in names
    ]
    return pytest.mark.parametrize("fusion", cases)


CASES = marked(TABLE)

# Six examples of three modalities, whose "sound" varies in length. Example 1 lacks one modality, 2
# lacks two, 5 lacks all.
PRESENT = {
    "image": np.array([1, 1, 0, 1, 1, 0], bool),
    "sound": np.array([1, 0, 0, 1, 1, 0], bool),
    "text": np.array([1, 1, 1, 1, 1, 0], bool),
}
STEPS = {"image": np.full(6, 2), "sound": np.array([3, 2, 1, 1, 2, 3]), "text": np.full(6, 2)}
SHAPES = {"image": (2, 5), "sound": (3, 2), "text": (2, 3)}


def make_tokens(hidden=0.0, seed=0):
    """Random tokens with `hidden` under every False mask."""
    rng = np.random.default_rng(seed)
    tokens = {}
    for m, (n, d) in SHAPES.items():
        mask = PRESENT[m][:, None] & (np.arange(n)[None] < STEPS[m][:, None])
        values = np.where(mask[:, :, None], rng.normal(size=(6, n, d)), hidden)
        tokens[m] = Tokens(jnp.asarray(values, jnp.float32), jnp.asarray(mask))
    return tokens


def random_params(fusion, tokens, seed=0):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(functools.partial(fusion.init, train=False), jax.random.key(0), tokens)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), shapes)


@functools.partial(jax.jit, static_argnums=0)
def apply(fusion, params, tokens):
    return fusion.apply(params, tokens, train=False)


@functools.partial(jax.jit, static_argnums=0)
def gradients(fusion, params, values, masks):
    """Of some scalar that depends on everything the fusion returns."""

    def loss(params, values):
        tokens = {m: Tokens(values[m], masks[m]) for m in values}
        out = fusion.apply(params, tokens, train=False)
        if isinstance(out, Branches):
            out = sum(jnp.sin(out.values[m]) * out.weights[m][:, None] for m in out.values)
        return jnp.sin(out).sum()

    return jax.grad(loss, argnums=(0, 1))(params, values)


def split(tokens):
    return {m: t.values for m, t in tokens.items()}, {m: t.mask for m, t in tokens.items()}


ROUNDING = bound_difference(100)


def assert_same(got, expected, atol=ROUNDING):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def visible(out):
    """What reaches a prediction: a branch of weight 0 does not."""
    if not isinstance(out, Branches):
        return out
    kept = {m: jnp.where(out.weights[m][:, None] > 0, v, 0) for m, v in out.values.items()}
    return Branches(kept, out.weights)


@CASES
@pytest.mark.parametrize("hidden", [np.nan, np.inf, 1e30])
def test_what_is_masked_has_no_effect(fusion, hidden):
    clean, dirty = make_tokens(), make_tokens(hidden)
    params = random_params(fusion, clean)
    assert_same(visible(apply(fusion, params, dirty)), visible(apply(fusion, params, clean)))
    expected = gradients(fusion, params, *split(clean))
    got = gradients(fusion, params, *split(dirty))
    assert_same(got, expected)
    for m, of_values in got[1].items():
        assert (of_values[~clean[m].mask] == 0).all()
        assert (of_values[clean[m].mask] != 0).any()


@CASES
def test_everything_is_finite_without_any_modality(fusion):
    tokens = {m: Tokens(t.values, jnp.zeros_like(t.mask)) for m, t in make_tokens(np.nan).items()}
    params = random_params(fusion, tokens)
    for x in jax.tree.leaves(apply(fusion, params, tokens)):
        assert jnp.isfinite(x).all()
    for x in jax.tree.leaves(gradients(fusion, params, *split(tokens))):
        assert jnp.isfinite(x).all()


@CASES
def test_the_order_of_modalities_does_not_matter(fusion):
    tokens = make_tokens()
    turned = dict(reversed(tokens.items()))
    assert list(turned) != list(tokens)

    def run(tokens):  # not jitted: that would sort the dictionaries by itself
        return fusion.init_with_output(jax.random.key(0), tokens, train=False)

    assert_same(run(turned), run(tokens), atol=0)


@CASES
def test_every_parameter_gets_a_gradient(fusion):
    tokens = make_tokens()
    params = random_params(fusion, tokens)
    for gradient in jax.tree.leaves(gradients(fusion, params, *split(tokens))[0]):
        assert jnp.abs(gradient).max() > 1e-6


@CASES
def test_bfloat16_stays_bfloat16_and_close(fusion):
    tokens = make_tokens()
    params = random_params(fusion, tokens)
    half = jax.tree.map(
        lambda x: x if x.dtype == bool else x.astype(jnp.bfloat16), (params, tokens)
    )
    got = apply(fusion, *half)
    assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype(jnp.bfloat16)}
    expected = apply(fusion, params, tokens)
    largest = max(jnp.abs(x).max() for x in jax.tree.leaves(expected))
    atol = 0.05 + 0.02 * largest
    assert_same(jax.tree.map(lambda x: x.astype(jnp.float32), got), expected, atol=atol)


@marked([n for n in TABLE if n != "concat"])
def test_vmap_over_seeds_is_each_seed_alone(fusion):
    tokens = make_tokens()
    seeds = [random_params(fusion, tokens, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *p: jnp.stack(p), *seeds)
    together = jax.jit(jax.vmap(lambda p: fusion.apply(p, tokens, train=False)))(stacked)
    for i, params in enumerate(seeds):
        alone = apply(fusion, params, tokens)
        assert_same(jax.tree.map(lambda x, i=i: x[i], together), alone, atol=1e-5)


@CASES
def test_one_modality_is_enough(fusion):
    tokens = {"text": make_tokens()["text"]}
    params = random_params(fusion, tokens)
    for x in jax.tree.leaves(apply(fusion, params, tokens)):
        assert jnp.isfinite(x).all()


# Each against its formula, example by example in float64.


def pooled(tokens, m, i):
    """The mean of the example's unmasked tokens, or None."""
    values = np.asarray(tokens[m].values[i], np.float64)[np.asarray(tokens[m].mask[i])]
    return values.mean(axis=0) if len(values) else None


def dense(params, name, x):
    layer = params["params"][name]
    return x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"])


def rows(tokens):
    """One {modality: vector or None} an example."""
    return [{m: pooled(tokens, m, i) for m in SHAPES} for i in range(6)]


def or_zeros(m, x):
    return np.zeros(SHAPES[m][1]) if x is None else x


def loop_concat(params, row):
    return np.concatenate([or_zeros(m, row[m]) for m in sorted(row)])


def loop_mean(params, row):
    terms = [dense(params, f"project_{m}", x) for m, x in row.items() if x is not None]
    return np.mean(terms, axis=0) if terms else np.zeros(4)


def loop_gated(params, row):
    total = np.zeros(4)
    for m, x in row.items():
        if x is not None:
            gate = 1 / (1 + np.exp(-dense(params, f"gate_{m}", loop_concat(params, row))))
            total += gate * np.tanh(dense(params, f"project_{m}", x))
    return total


@pytest.mark.parametrize(
    "fusion, loop", [(Concat(), loop_concat), (Mean(4), loop_mean), (Gated(4), loop_gated)]
)
def test_formula(fusion, loop):
    tokens = make_tokens(np.nan)
    params = random_params(fusion, tokens)
    expected = [loop(params, row) for row in rows(tokens)]
    np.testing.assert_allclose(apply(fusion, params, tokens), np.stack(expected), atol=1e-5)


@pytest.mark.parametrize("learned", [False, True])
def test_late_formula(learned):
    fusion, tokens = Late(4, learned), make_tokens(np.nan)
    params = random_params(fusion, tokens)
    values, weights = apply(fusion, params, tokens)
    for i, row in enumerate(rows(tokens)):
        there = [m for m in row if row[m] is not None]
        score = {m: np.exp(params["params"][f"logit_{m}"]) if learned else 1.0 for m in there}
        for m in row:
            expected = score[m] / sum(score.values()) if m in there else 0.0
            np.testing.assert_allclose(weights[m][i], expected, atol=bound_difference(20))
        for m in there:
            branch = np.maximum(dense(params, f"project_{m}", row[m]), 0)
            np.testing.assert_allclose(values[m][i], branch, atol=1e-5)


def test_a_lone_modality_has_the_whole_weight_however_low_its_logit():
    tokens = make_tokens()
    params = random_params(Late(4, learned=True), tokens)
    params["params"]["logit_text"] = jnp.float32(-1e3)
    _, weights = apply(Late(4, learned=True), params, tokens)
    assert weights["text"][2] == 1.0


def test_pool_by_hand():
    values = jnp.array([[[1.0, 4.0], [3.0, 8.0], [np.nan, 5.0]], [[np.inf, 1.0]] * 3])
    mask = jnp.array([[True, True, False], [False] * 3])
    got = pool(Tokens(values, mask))
    np.testing.assert_array_equal(got.values, [[2, 6], [0, 0]])
    np.testing.assert_array_equal(got.present, [True, False])


def test_every_fusion_is_in_the_table():
    public = {getattr(fusions, name) for name in fusions.__all__} - {pool}
    assert public == {type(fusion) for fusion in TABLE.values()}


@pytest.mark.slow
@CASES
def test_a_fusion_is_traced_for_any_number_of_examples(fusion):
    tokens = make_tokens()
    init = functools.partial(fusion.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), tokens)
    (batch,) = export.symbolic_shape("batch")
    structs = jax.tree.map(lambda a: jax.ShapeDtypeStruct((batch, *a.shape[1:]), a.dtype), tokens)
    fused = jax.eval_shape(functools.partial(fusion.apply, train=False), variables, structs)
    assert all(leaf.shape[0] == batch for leaf in jax.tree.leaves(fused))
