"""Fusions for missing modalities against their formulas, example by example in float64."""

import functools
import itertools
import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from mmjax import balance
from mmjax.fusion import (
    ActionMAE,
    Concat,
    EarlyTransformer,
    HEALNet,
    Hide,
    Mean,
    MultiModN,
    PatternExperts,
    ProductOfExperts,
    Prompted,
    ShaSpec,
)
from mmjax.fusion.hide import draw_hidden
from mmjax.fusion.pooling import encode_patterns
from mmjax.kernels.attention import TransformerLayer
from mmjax.layers.missing_token import MissingToken
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch, Tokens
from tests.fusion.test_fusion import (
    PRESENT,
    SHAPES,
    apply,
    dense,
    make_tokens,
    or_zeros,
    random_params,
    rows,
    split,
)
from tests.tolerance import bound_difference


def relu(x):
    return np.maximum(x, 0)


def loop_sha_spec(params, row):
    h = {m: dense(params, f"project_{m}", x) for m, x in row.items() if x is not None}
    shared = {m: relu(dense(params, "shared", x)) for m, x in h.items()}
    mean = np.mean(list(shared.values()), axis=0) if shared else np.zeros(4)
    parts = []
    for m in sorted(row):
        if m in h:
            specific = relu(dense(params, f"specific_{m}", h[m]))
            both = np.concatenate([shared[m], specific])
            parts.append(shared[m] + dense(params, "compose", both))
        else:
            parts.append(mean)
    return np.concatenate(parts)


def loop_sequential(params, row, order=None):
    state = np.asarray(params["params"]["state"], np.float64)
    for m in order or sorted(row):
        if row[m] is not None:
            read = relu(dense(params, f"read_{m}", np.concatenate([state, row[m]])))
            state = dense(params, f"write_{m}", read)
    return state


@pytest.mark.parametrize(
    "fusion, loop", [(ShaSpec(4), loop_sha_spec), (MultiModN(4), loop_sequential)]
)
def test_formula(fusion, loop):
    tokens = make_tokens(np.nan)
    params = random_params(fusion, tokens)
    expected = [loop(params, row) for row in rows(tokens)]
    np.testing.assert_allclose(
        apply(fusion, params, tokens), np.stack(expected), rtol=1e-5, atol=1e-5
    )


@pytest.mark.slow
def test_the_order_of_a_sequence_is_random_in_training_only():
    fusion, tokens = MultiModN(4), make_tokens()
    params = random_params(fusion, tokens)
    seen = set()
    train = jax.jit(lambda key: fusion.apply(params, tokens, train=True, rngs={"dropout": key}))
    for seed in range(8):
        got = train(jax.random.key(seed))
        for i, row in enumerate(rows(tokens)):
            orders = list(itertools.permutations(sorted(row)))
            errors = [np.abs(loop_sequential(params, row, o) - got[i]).max() for o in orders]
            assert min(errors) < 1e-4
            if all(x is not None for x in row.values()):
                seen.add(orders[int(np.argmin(errors))])
    assert len(seen) == 6


@pytest.mark.slow
def test_without_prompts_it_is_the_early_transformer():
    plain, prompted = EarlyTransformer(4, heads=2), Prompted(4, prompted_layers=0, heads=2)
    tokens = make_tokens(np.nan)
    params = random_params(plain, tokens)["params"]
    moved = {name: p for name, p in params.items() if name != "stack"} | params["stack"]
    expected = apply(plain, {"params": params}, tokens)
    got = apply(prompted, {"params": moved}, tokens)
    np.testing.assert_allclose(got, expected, atol=bound_difference(1000))


@pytest.mark.slow
def test_prompts_learn_from_examples_of_their_pattern_only():
    fusion, tokens = Prompted(4, prompts=2, layers=1, heads=2), make_tokens()
    params = random_params(fusion, tokens)
    slopes = jax.grad(lambda p: jnp.sin(fusion.apply(p, tokens, train=False)).sum())(params)
    table = np.abs(slopes["params"]["prompts_0"]).max(axis=(1, 2))
    occurring = {int(k) for k in encode_patterns(jnp.stack(list(PRESENT.values())))[0]} - {0}
    assert set(np.flatnonzero(table)) == occurring


@pytest.mark.slow
def test_latents_skip_a_missing_modality_as_if_the_model_had_none_of_it():
    fusion, tokens = HEALNet(4, latents=3, layers=2, heads=2), make_tokens(np.nan)
    params = random_params(fusion, tokens)
    fused = apply(fusion, params, tokens)
    for names in itertools.chain(*(itertools.combinations(SHAPES, k) for k in (1, 2, 3))):
        alike = np.all([PRESENT[m] == (m in names) for m in SHAPES], axis=0)
        got = apply(fusion, params, {m: tokens[m] for m in names})
        np.testing.assert_allclose(got[alike], fused[alike], atol=bound_difference(1000))
    learned = params["params"]["latents"].mean(axis=0)
    expected = nn.LayerNorm().apply({"params": params["params"]["norm"]}, learned)
    np.testing.assert_allclose(fused[5], expected, atol=bound_difference(100))


def test_the_layers_of_heal_net_share_their_weights():
    tokens = make_tokens()
    shapes = []
    for layers in (1, 3):
        fusion = HEALNet(4, layers=layers)
        init = functools.partial(fusion.init, train=False)
        shapes.append(jax.eval_shape(init, jax.random.key(0), tokens))
    assert shapes[0] == shapes[1]


def test_patterns_are_numbered_by_bits_and_refused_if_too_many():
    present = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 0]], bool)
    pattern, count = encode_patterns(jnp.asarray(present))
    assert count == 8 and pattern.tolist() == [5, 0, 3]
    with pytest.raises(ValueError, match="13 modalities have 2\\^13 patterns"):
        encode_patterns(jnp.ones((13, 2), bool))


def test_the_bank_has_a_token_per_pattern():
    values, mask = jnp.arange(8.0).reshape(4, 1, 2), jnp.array([[True], [False], [False], [True]])
    bank = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    pattern = jnp.array([0, 2, 1, 2])

    def fill(bank):
        return MissingToken(True, 3).apply(
            {"params": {"bank": bank}}, Tokens(values, mask), pattern
        )

    np.testing.assert_array_equal(fill(bank).values[:, 0], [[0, 1], [5, 6], [3, 4], [6, 7]])
    slope = jax.grad(lambda b: fill(b).values.sum())(bank)
    np.testing.assert_array_equal(slope, [[0, 0], [1, 1], [1, 1]])


@pytest.mark.slow
def test_experts_are_mixed_by_the_largest_logits_and_told_their_pattern():
    fusion, tokens = PatternExperts(4, heads=2), make_tokens(np.nan)
    params = random_params(fusion, tokens)
    got, state = fusion.apply(params, tokens, train=False, mutable=["intermediates"])
    p = params["params"]
    pattern = np.asarray(encode_patterns(jnp.stack(list(PRESENT.values())))[0])
    vectors = np.zeros((6, 3, 4))
    for i, row in enumerate(rows(tokens)):
        for j, m in enumerate(sorted(row)):
            bank = p["banks"][j, pattern[i]]
            vectors[i, j] = bank if row[m] is None else dense(params, f"project_{m}", row[m])
    filled = Tokens(jnp.float32(vectors), jnp.ones((6, 3), bool))
    mixed = TransformerLayer(2).apply({"params": p["mix"]}, filled, train=False).values
    normed = np.float64(nn.LayerNorm().apply({"params": p["norm"]}, mixed))
    cross_entropy, mask = state["intermediates"]["router"][0]
    for i in range(6):
        result = []
        for j in range(3):
            logits = normed[i, j] @ np.float64(p["gate"]["kernel"])
            best = np.argsort(logits)[-2:]
            gates = special.softmax(logits[best])
            hidden = [np.float64(jax.nn.gelu(normed[i, j] @ p["experts_in"][k])) for k in best]
            terms = [h @ np.float64(p["experts_out"][k]) for h, k in zip(hidden, best, strict=True)]
            result.append(mixed[i, j] + gates @ np.stack(terms))
            assert mask[i, j] == (0 < pattern[i] < 7)
            if mask[i, j]:  # the expert of pattern p is number p; that of all modalities is 0
                expected = -special.log_softmax(logits)[pattern[i]]
                assert float(cross_entropy[i, j]) == pytest.approx(expected, rel=1e-4)
        expected = np.concatenate(result) if pattern[i] else np.zeros(12)
        np.testing.assert_allclose(got[i], expected, rtol=1e-4, atol=1e-4)


def test_hidden_modalities_are_present_ones_at_the_rate_and_never_all():
    present = jnp.asarray(np.random.default_rng(0).random((3, 4000)) < 0.7)
    hidden = draw_hidden(jax.random.key(0), present, 0.3)
    assert not (hidden & ~present).any()
    left = (present & ~hidden).any(axis=0)
    assert (left == present.any(axis=0)).all()
    complete = present.all(axis=0)
    # P(hidden) = r - r^3 / 3: all three are drawn with r^3, and then one of them stays.
    share, expected = float(hidden[:, complete].mean()), 0.3 - 0.3**3 / 3
    deviation = np.sqrt(expected / (3 * int(complete.sum())))
    assert abs(share - expected) < 4 * deviation
    assert not draw_hidden(jax.random.key(0), present, 0.0).any()


def test_hiding_is_the_other_fusion_without_what_it_hides():
    fusion, tokens = Hide(Concat(), rate=0.6), make_tokens(np.nan)
    np.testing.assert_array_equal(apply(fusion, {}, tokens), apply(Concat(), {}, tokens))
    key = jax.random.key(1)
    got = fusion.apply({}, tokens, train=True, rngs={"dropout": key})
    ends = np.cumsum([SHAPES[m][1] for m in sorted(SHAPES)])[:-1]
    for i, row in enumerate(rows(tokens)):
        kept = 0
        for m, part in zip(sorted(row), np.split(np.asarray(got[i]), ends), strict=True):
            full = or_zeros(m, row[m])
            is_kept = np.allclose(part, full, atol=1e-6) and bool(full.any())
            assert is_kept or not part.any()
            kept += is_kept
        assert (kept > 0) == any(x is not None for x in row.values())


def test_hiding_passes_on_what_the_other_fusion_sows():
    fusion, tokens = Hide(ProductOfExperts(4, sample=False)), make_tokens()
    params = random_params(fusion, tokens)
    _, state = fusion.apply(params, tokens, train=False, mutable=["intermediates"])
    assert {"gaussian", "experts"} <= set(state["intermediates"])


@pytest.mark.slow
def test_reconstruction_fills_what_is_missing_and_does_not_see_what_is_hidden():
    fusion, tokens = ActionMAE(4, heads=2), make_tokens(np.nan)
    params = random_params(fusion, tokens)
    complete = apply(fusion, params, tokens)
    for i, row in enumerate(rows(tokens)):
        if all(x is not None for x in row.values()):
            mean = np.mean([dense(params, f"project_{m}", x) for m, x in row.items()], axis=0)
            np.testing.assert_allclose(complete[i], mean, rtol=1e-4, atol=1e-5)
    assert (complete[5] == 0).all()  # nothing is present

    values, masks = split(make_tokens())

    def errors(values, key):
        tokens = {m: Tokens(values[m], masks[m]) for m in values}
        _, state = fusion.apply(
            params, tokens, train=True, rngs={"dropout": key}, mutable=["intermediates"]
        )
        return state["intermediates"]["reconstruction"][0]

    key = jax.random.key(3)
    hidden = errors(values, key)[1]
    present = np.stack([PRESENT[m] for m in sorted(PRESENT)], axis=1)
    assert hidden.any() and not (hidden & ~present).any()
    assert ((present & ~np.asarray(hidden)).any(axis=1) == present.any(axis=1)).all()
    slope = jax.grad(lambda v: jnp.where(errors(v, key)[1], errors(v, key)[0], 0).sum())(values)
    for j, m in enumerate(sorted(values)):
        assert (np.asarray(slope[m])[np.asarray(hidden[:, j])] == 0).all()


@pytest.mark.parametrize(
    "make", [functools.partial(Hide, Mean(4)), functools.partial(ActionMAE, 4)]
)
def test_a_rate_is_a_share(make):
    with pytest.raises(ValueError, match=r"rate is 1\.5; it must be between 0 and 1"):
        make(rate=1.5)


@pytest.mark.slow
def test_the_recipes_of_the_page_train_on_any_pattern():
    page = (Path(__file__).parents[2] / "docs" / "missing.md").read_text(encoding="utf-8")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    yes = jnp.ones(4, bool)
    batch = Batch(
        {"image": jnp.ones((4, 5)), "speech": jnp.ones((4, 7, 3))},
        {"image": jnp.array([True, False, True, False]), "speech": jnp.array([1, 1, 0, 0], bool)},
        {"speech": jnp.full(4, 7)},
        {"digit": jnp.arange(4), "language": jnp.arange(4)},
        {"digit": yes, "language": yes},
    )
    for model in names["RECIPES"].values():
        parts = model, optax.sgd(0.1), balance.equal()
        state = jax.eval_shape(lambda key, p=parts: init_state(*p, batch, key), jax.random.key(0))
        new, metrics = jax.eval_shape(make_train_step(*parts), state, batch)
        assert jax.tree.structure(new) == jax.tree.structure(state)
        assert {f"loss/{name}" for name in model.auxiliary} < set(metrics)
