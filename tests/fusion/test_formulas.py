"""Each fusion against its formula, example by example in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from mmjax.fusion import (
    AttentionPool,
    Bottleneck,
    CrossModal,
    EarlyTransformer,
    Embrace,
    FiLM,
    HEALNet,
    LowRankTensor,
    Max,
    Multiplicative,
    Perceiver,
    ProductOfExperts,
    Sum,
    Tensor,
)
from mmjax.types import Tokens

SHAPES = {"image": (2, 5), "sound": (3, 2), "text": (2, 3)}
EXAMPLES = 6
# Example 1 lacks one modality, 2 lacks two, 5 lacks all.
PRESENT = {"image": [1, 1, 0, 1, 1, 0], "sound": [1, 0, 0, 1, 1, 0], "text": [1, 1, 1, 1, 1, 0]}
STEPS = {"image": [2, 2, 2, 1, 2, 2], "sound": [3, 2, 1, 1, 2, 3], "text": [2, 1, 2, 2, 2, 2]}


def make_tokens():
    """NaN stands under every False mask."""
    rng = np.random.default_rng(0)
    tokens = {}
    for m, (n, d) in SHAPES.items():
        inside = np.arange(n)[None] < np.array(STEPS[m])[:, None]
        mask = np.array(PRESENT[m], bool)[:, None] & inside
        values = np.where(mask[:, :, None], rng.normal(size=(EXAMPLES, n, d)), np.nan)
        tokens[m] = Tokens(jnp.asarray(values, jnp.float32), jnp.asarray(mask))
    return tokens


def random_params(fusion, tokens):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(functools.partial(fusion.init, train=False), jax.random.key(0), tokens)
    params = jax.tree.map(lambda p: 0.5 * rng.normal(size=p.shape), shapes)["params"]
    return jax.tree.map(lambda p: p.astype(np.float32).astype(np.float64), params)


def rows(tokens, i):
    """{modality: the example's real tokens [n d]}, without modalities that have none."""
    kept = {
        m: np.asarray(t.values[i], np.float64)[np.asarray(t.mask[i])] for m, t in tokens.items()
    }
    return {m: x for m, x in sorted(kept.items()) if len(x)}


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0)


def projected(p, row):
    return {m: dense(p[f"project_{m}"], x.mean(0)) for m, x in row.items()}


def or_zeros(row):
    return {m: row[m].mean(0) if m in row else np.zeros(d) for m, (_, d) in SHAPES.items()}


def loop_sum(p, row):
    return sum(projected(p, row).values(), start=np.zeros(4))


def loop_max(p, row):
    return np.max(list(projected(p, row).values()), axis=0) if row else np.zeros(4)


def loop_film(p, row, main="image"):
    x = dense(p[f"project_{main}"], row[main].mean(0)) if main in row else np.zeros(4)
    others = [m for m in sorted(SHAPES) if m != main]
    if not any(m in row for m in others):
        return x
    condition = np.concatenate([or_zeros(row)[m] for m in others])
    return (1 + dense(p["scale"], condition)) * x + dense(p["shift"], condition)


def loop_tensor(p, row):
    x = {m: projected(p, row)[m] if m in row else np.zeros(2) for m in sorted(SHAPES)}
    one, two, three = (np.concatenate([[1], v]) for v in x.values())
    return np.einsum("i,j,k->ijk", one, two, three).ravel()


def loop_low_rank(p, row):
    """The full tensor of weights, made of the factors, times the full outer product."""
    x = [np.concatenate([[1], v]) for _, v in sorted(or_zeros(row).items())]
    factors = []
    for m in sorted(SHAPES):
        layer = p[f"factor_{m}"]
        whole = np.concatenate([layer["bias"][None], layer["kernel"]])
        factors.append(whole.reshape(-1, 3, 4))
    weights = np.einsum("iro,jro,kro->ijko", *factors)
    return np.einsum("i,j,k,ijko->o", *x, weights) + p["bias"]


def loop_multiplicative(p, row, form="matrix"):
    (_, x), *others = sorted(or_zeros(row).items())
    for m, z in others:
        linear = x @ p[f"linear_before_{m}"]["kernel"]
        if form == "matrix":
            both = np.einsum("e,edo,d->o", z, p[f"tensor_{m}"], x)
        else:
            both = (z @ p[f"factor_{m}"]["kernel"]) * linear
        x = both + linear + dense(p[f"shift_{m}"], z)
    return x


def loop_embrace(p, row):
    docked = [np.maximum(v, 0) for v in projected(p, row).values()]
    return np.mean(docked, axis=0) if docked else np.zeros(4)


def loop_experts(p, row):
    mean, precision = np.zeros(4), np.ones(4)
    for m, x in row.items():
        exactness = 1 / np.exp(dense(p[f"log_variance_{m}"], x.mean(0)))
        mean += exactness * dense(p[f"mean_{m}"], x.mean(0))
        precision += exactness
    return mean / precision


# Transformers, one example at a time, without masks: only the real tokens are there.


def norm(p, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def attention(p, queries, context):
    p = p["heads"]
    if not len(context):
        return np.zeros_like(queries)
    total = np.zeros_like(queries)
    heads = p["query"]["kernel"].shape[1]
    for h in range(heads):
        q, k, v = (
            x @ p[name]["kernel"][:, h]
            for name, x in (("query", queries), ("key", context), ("value", context))
        )
        scores = np.exp(q @ k.T / np.sqrt(q.shape[1]))
        total += scores / scores.sum(1, keepdims=True) @ v @ p["out"]["kernel"][h]
    return total


def gelu(x):
    """The approximation by tanh that Flax takes; within 1e-3 of x Φ(x)."""
    y = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    assert np.abs(y - x * (1 + erf(x / np.sqrt(2))) / 2).max() < 1e-3
    return y


def layer(p, x, context=None):
    queries = norm(p["norm_queries"], x)
    context = queries if context is None else norm(p["norm_context"], context)
    x = x + attention(p["attention"], queries, context)
    return x + dense(p["mlp_out"], gelu(dense(p["mlp_in"], norm(p["norm_mlp"], x))))


def stack(p, x, context=None):
    for i in range(len([name for name in p if name.startswith("layer_")])):
        x = layer(p[f"layer_{i}"], x, context)
    return norm(p["norm"], x)


def embedded(p, row):
    return {m: dense(p[f"project_{m}"], x) for m, x in row.items()}


def loop_early(p, row):
    return (
        stack(p["stack"], np.concatenate(list(embedded(p, row).values()))).mean(0)
        if row
        else np.zeros(4)
    )


def loop_cross_modal(p, row):
    x, results = embedded(p, row), []
    for m in sorted(SHAPES):
        if m not in x:
            results.append(np.zeros(8))
            continue
        found = [
            stack(p[f"{m}_from_{s}"], x[m], x.get(s, np.zeros((0, 4))))
            for s in sorted(SHAPES)
            if s != m
        ]
        results.append(stack(p[f"memory_{m}"], np.concatenate(found, axis=1)).mean(0))
    return np.concatenate(results)


def loop_bottleneck(p, row):
    if not row:
        return np.zeros(4)
    x, shared = embedded(p, row), p["bottlenecks"]
    x = {m: layer(p[f"layer_0_{m}"], t) for m, t in x.items()}
    for i in (1, 2):
        both = {m: layer(p[f"layer_{i}_{m}"], np.concatenate([t, shared])) for m, t in x.items()}
        x = {m: b[: len(x[m])] for m, b in both.items()}
        shared = np.mean([b[len(x[m]) :] for m, b in both.items()], axis=0)
    return np.mean([norm(p[f"norm_{m}"], t).mean(0) for m, t in x.items()], axis=0)


def loop_perceiver(p, row):
    if not row:
        return np.zeros(4)
    context, x = np.concatenate(list(embedded(p, row).values())), p["latents"]
    for i in range(2):
        x = stack(p[f"think_{i}"], layer(p[f"look_{i}"], x, context))
    return x.mean(0)


def selu(x):
    return 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))


def loop_heal_net(p, row):
    contexts, x = {m: norm(p[f"norm_{m}"], t) for m, t in embedded(p, row).items()}, p["latents"]
    for _ in range(2):
        for m, context in contexts.items():
            x = x + attention(p[f"attention_{m}"], norm(p[f"norm_queries_{m}"], x), context)
            hidden = selu(dense(p["network"]["dense_in"], norm(p["norm_network"], x)))
            x = x + dense(p["network"]["dense_out"], hidden)
    return norm(p["norm"], x.mean(0))


def loop_attention(p, row):
    context = np.tanh(np.array([*projected(p, row).values()]).reshape(-1, 4))
    return attention(p["attention"], p["query"][0], context)[0]


@pytest.mark.parametrize(
    "fusion, loop",
    [
        (Sum(4), loop_sum),
        (Max(4), loop_max),
        (FiLM(4), loop_film),
        (FiLM(4, modulated="text"), functools.partial(loop_film, main="text")),
        (Tensor(2), loop_tensor),
        (LowRankTensor(4, rank=3), loop_low_rank),
        (Multiplicative(4), loop_multiplicative),
        (Multiplicative(4, "vector"), functools.partial(loop_multiplicative, form="vector")),
        (Multiplicative(4, "scalar"), functools.partial(loop_multiplicative, form="scalar")),
        (Embrace(4), loop_embrace),
        (ProductOfExperts(4), loop_experts),
        (AttentionPool(4, heads=2), loop_attention),
        (EarlyTransformer(4, heads=2), loop_early),
        (CrossModal(4, heads=2), loop_cross_modal),
        (Bottleneck(4, bottlenecks=2, layers=3, separate=1, heads=2), loop_bottleneck),
        (Perceiver(4, latents=3, rounds=2, layers=2, heads=2), loop_perceiver),
        (HEALNet(4, latents=3, layers=2, heads=2), loop_heal_net),
    ],
)
def test_formula(fusion, loop):
    tokens = make_tokens()
    params = random_params(fusion, tokens)
    expected = [loop(params, rows(tokens, i)) for i in range(EXAMPLES)]
    as_float32 = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)
    got = jax.jit(lambda p: fusion.apply({"params": p}, tokens, train=False))(as_float32)
    np.testing.assert_allclose(got, np.stack(expected), atol=2e-5, rtol=1e-5)


def test_embrace_draws_each_entry_from_the_modalities_present_alike():
    tokens = make_tokens()
    fusion = Embrace(4)
    params = random_params(fusion, tokens)
    as_float32 = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)

    def draw(key):
        return fusion.apply({"params": as_float32}, tokens, train=True, rngs={"dropout": key})

    drawn = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 3000)))
    docked = np.array([np.maximum(v, 0) for v in projected(params, rows(tokens, 0)).values()])
    nearest = np.abs(drawn[:, 0, None] - docked[None]).min(1)
    assert nearest.max() < 1e-5  # never a mixture
    expected = [loop_embrace(params, rows(tokens, i)) for i in range(EXAMPLES)]
    np.testing.assert_allclose(drawn.mean(0), expected, atol=0.1)


def test_experts_draw_from_the_product_while_training():
    tokens = make_tokens()
    fusion = ProductOfExperts(4)
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), random_params(fusion, tokens))

    def draw(key):
        return fusion.apply({"params": params}, tokens, train=True, rngs={"dropout": key})

    drawn = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 4000)))
    np.testing.assert_allclose(drawn[:, 5].mean(0), 0, atol=0.1)  # no modality: the prior
    np.testing.assert_allclose(drawn[:, 5].std(0), 1, atol=0.05)
    x = rows(tokens, 2)["text"].mean(0)  # one modality
    variance = np.exp(dense(jax.tree.map(np.asarray, params)["log_variance_text"], x))
    np.testing.assert_allclose(drawn[:, 2].std(0), 1 / np.sqrt(1 + 1 / variance), rtol=0.06)
    quiet = fusion.apply({"params": params}, tokens, train=False)
    still = ProductOfExperts(4, sample=False).apply({"params": params}, tokens, train=True)
    np.testing.assert_allclose(drawn.mean(0), quiet, atol=0.1)
    np.testing.assert_array_equal(still, quiet)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: FiLM(4, modulated="video"), "modulated is 'video', but the modalities are image"),
        (lambda: Bottleneck(4, layers=2, separate=2, heads=2), "separate is 2; it must be 0 to 1"),
        (lambda: Perceiver(4, heads=3), "width of 4 cannot be shared by 3 attention heads"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make().init(jax.random.key(0), make_tokens(), train=False)
