"""The encoders of sequences, sets and vectors against loops in NumPy, one number at a time."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import (
    Conv1dEncoder,
    DeepSetsEncoder,
    Features,
    MaxoutEncoder,
    TemporalConvEncoder,
    TransformerEncoder,
    Wrap,
)
from mmjax.encoders.transformer import _cut_into_patches
from mmjax.kernels.conv1d import conv1d, conv1d_by_slices, plain_conv1d
from tests.tolerance import bound_difference

X = np.random.default_rng(0).normal(size=(3, 7, 2)).astype(np.float32)
LENGTHS = np.array([7, 2, 5], np.int32)


def random_params(encoder, x, length):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: run(encoder, x, length))
    return jax.tree.map(lambda p: jnp.asarray(0.5 * rng.normal(size=p.shape), p.dtype), shapes)


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def norm(p, x):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * p["scale"] + p["bias"]


def relu(x):
    return np.maximum(x, 0)


def loop_conv1d(p, x, before, dilation):
    """y[t] = b + Σ_i x[t + i * dilation - before] W_i, where x is zero outside of [0, t)."""
    kernel = p["kernel"]
    y = np.zeros((len(x), kernel.shape[2]))
    for t in range(len(x)):
        for i in range(len(kernel)):
            at = t + i * dilation - before
            if 0 <= at < len(x):
                y[t] += x[at] @ kernel[i]
    return y + p["bias"]


def loop_conv_encoder(encoder, p, x):
    for i in range(len(encoder.features)):
        x = loop_conv1d(p[f"conv_{i}"], x, (encoder.kernel - 1) // 2, 1)
        x = relu(norm(p[f"norm_{i}"], x))
        x = np.stack([x[s : s + encoder.pool].max(axis=0) for s in range(0, len(x), encoder.pool)])
    return x


def loop_temporal(encoder, p, x):
    for i in range(len(encoder.features)):
        block, y, dilation = p[f"block_{i}"], x, 2**i
        for j in range(2):
            y = loop_conv1d(block[f"conv_{j}"], y, dilation * (encoder.kernel - 1), dilation)
            y = relu(norm(block[f"norm_{j}"], y))
        x = relu(y + (dense(block["shortcut"], x) if "shortcut" in block else x))
    return x


def gelu(x):
    return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


def loop_attention(p, x):
    """Head by head and query by query."""
    out = np.zeros_like(x)
    for i in range(len(x)):
        for h in range(p["query"]["kernel"].shape[1]):
            q, k, v = (p[n]["kernel"][:, h] for n in ("query", "key", "value"))
            scores = np.array([x[i] @ q @ (x[j] @ k) for j in range(len(x))]) / np.sqrt(q.shape[1])
            weights = np.exp(scores) / np.exp(scores).sum()
            out[i] += weights @ (x @ v) @ p["out"]["kernel"][h]
    return out


def loop_transformer(encoder, p, x):
    """Everything but the output's form, on tokens x [n d]."""
    places = np.zeros((len(x), encoder.width))
    for place, i in np.ndindex(places.shape):
        half = encoder.width // 2
        angle = place / 10000 ** (i % half / half)
        places[place, i] = np.sin(angle) if i < half else np.cos(angle)
    x = dense(p["embed"], x) + p.get("positions", places)[: len(x)]
    x = np.concatenate([p["class"][None], x]) if "class" in p else x
    for i in range(encoder.layers):
        layer = p["stack"][f"layer_{i}"]
        x = x + loop_attention(layer["attention"]["heads"], norm(layer["norm_queries"], x))
        x = x + dense(layer["mlp_out"], gelu(dense(layer["mlp_in"], norm(layer["norm_mlp"], x))))
    return norm(p["stack"]["norm"], x)


def loop_deep_sets(encoder, p, x):
    total = []
    for element in x:
        for i in range(len(encoder.each)):
            element = relu(dense(p[f"each_{i}"], element))
        total.append(element)
    y = getattr(np, encoder.pool)(total, axis=0)
    for i in range(len(encoder.together)):
        y = relu(dense(p[f"together_{i}"], y))
    return y[None]


LOOPS = [
    (Conv1dEncoder((4, 3), 3, output="all"), loop_conv_encoder),
    (Conv1dEncoder((4,), 4, pool=3, output="mean"), loop_conv_encoder),
    (TemporalConvEncoder((4, 4, 3), 2, output="all"), loop_temporal),
    (TemporalConvEncoder((4, 4), 3, output="last"), loop_temporal),
    (TransformerEncoder(6, 2, 3, output="all"), loop_transformer),
    (TransformerEncoder(4, 1, 2, learned_positions=9, output="class"), loop_transformer),
    (DeepSetsEncoder((4, 3), (5, 2)), loop_deep_sets),
    (DeepSetsEncoder((4,), (3,), pool="max"), loop_deep_sets),
    (DeepSetsEncoder((4,), (3,), pool="mean"), loop_deep_sets),
]
TAKE = {
    "all": lambda y: y,
    "mean": lambda y: y.mean(axis=0, keepdims=True),
    "last": lambda y: y[-1:],
    "class": lambda y: y[:1],
}


def loop_all(encoder, loop, params):
    """All examples' tokens, under sines so that a sum of them is a scalar with a gradient."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)["params"]
    take = TAKE[getattr(encoder, "output", "all")]
    rows = [
        take(loop(encoder, p, row[:n].astype(np.float64)))
        for row, n in zip(X, LENGTHS, strict=True)
    ]
    return rows, sum(np.sin(row).sum() for row in rows)


@pytest.mark.parametrize("encoder, loop", LOOPS)
def test_values_and_gradient_are_the_loops(encoder, loop):
    """The gradient along one direction against a central difference of the float64 loop."""
    params = random_params(encoder, X, LENGTHS)

    @jax.jit
    def derive(params):
        def total(params):
            tokens = encoder.apply(params, jnp.asarray(X), jnp.asarray(LENGTHS), train=False)
            return jnp.where(tokens.mask[..., None], jnp.sin(tokens.values), 0).sum(), tokens

        return jax.grad(total, has_aux=True)(params)

    gradient, tokens = derive(params)
    rows, _ = loop_all(encoder, loop, params)
    for i, row in enumerate(rows):
        np.testing.assert_allclose(tokens.values[i, : len(row)], row, atol=1e-5)
        assert tokens.mask[i].sum() == len(row)
    rng = np.random.default_rng(2)
    direction = jax.tree.map(lambda p: rng.normal(size=p.shape), params)

    def moved(by):
        near = jax.tree.map(lambda p, d: np.float64(p) + by * d, params, direction)
        return loop_all(encoder, loop, near)[1]

    product = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
    np.testing.assert_allclose(product, (moved(1e-6) - moved(-1e-6)) / 2e-6, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("conv", [conv1d, conv1d_by_slices, plain_conv1d])
@pytest.mark.parametrize("size, dilation", [(1, 1), (3, 1), (2, 3), (3, 2)])
def test_convolution_is_the_naive_sum(conv, size, dilation):
    kernel = np.random.default_rng(1).normal(size=(size, 2, 4)).astype(np.float32)
    got = conv(jnp.asarray(X), jnp.asarray(kernel), dilation=dilation)
    for i, x in enumerate(X):
        whole = loop_conv1d({"kernel": kernel, "bias": np.zeros(4)}, x, 0, dilation)
        np.testing.assert_allclose(got[i], whole[: 7 - dilation * (size - 1)], atol=1e-5)


def test_the_future_has_no_effect_on_a_causal_network():
    encoder = TemporalConvEncoder((4, 4), 2, output="all")
    params = random_params(encoder, X, None)
    run = jax.jit(lambda x: encoder.apply(params, x, train=False).values)
    before, after = run(jnp.asarray(X)), run(jnp.asarray(X).at[:, 4].add(10.0))
    np.testing.assert_allclose(after[:, :4], before[:, :4], atol=bound_difference(50))
    # 1 + 2 (2 - 1) (2^2 - 1) = 7 steps are seen, so all later ones feel it.
    assert (jnp.abs(after[:, 4:] - before[:, 4:]).max(axis=(0, 2)) > 1e-3).all()


def test_patches_are_cut_row_after_row():
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    mask = np.arange(5)[None] < np.array([[5], [2]])
    got = _cut_into_patches(jnp.asarray(x), jnp.asarray(mask), (2, 3))
    whole = np.zeros((2, 6, 6, 3))
    whole[:, :5, :4] = x
    expected = [whole[:, i : i + 2, j : j + 3].reshape(2, -1) for i in (0, 2, 4) for j in (0, 3)]
    np.testing.assert_array_equal(got.values, np.stack(expected, axis=1))
    np.testing.assert_array_equal(got.mask, [[True] * 6, [True] * 2 + [False] * 4])


def test_a_transformer_of_patches_is_a_transformer_of_their_numbers():
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype(np.float32)
    encoder = TransformerEncoder(4, 1, 2, patch=(2, 2), output="all")
    params = random_params(encoder, x, None)
    got = encoder.apply(params, jnp.asarray(x), train=False)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)["params"]
    for i, image in enumerate(x):
        cut = [image[r : r + 2, c : c + 2].reshape(-1) for r in (0, 2) for c in (0, 2)]
        np.testing.assert_allclose(
            got.values[i], loop_transformer(encoder, p, np.array(cut)), atol=1e-5
        )


def test_maxout_is_the_largest_piece():
    encoder = MaxoutEncoder((4, 3), pieces=3)
    params = random_params(encoder, X, None)
    y = X.reshape(3, -1).astype(np.float64)
    for i in range(2):
        p = params["params"][f"pieces_{i}"]
        pieces = [y @ np.asarray(p["kernel"])[:, k] + np.asarray(p["bias"])[k] for k in range(3)]
        y = np.max(pieces, axis=0)
    got = encoder.apply(params, jnp.asarray(X), train=False)
    np.testing.assert_allclose(got.values[:, 0], y, atol=1e-5)


@pytest.mark.parametrize("pool", ["sum", "mean", "max"])
def test_the_order_of_a_set_has_no_effect(pool):
    encoder = DeepSetsEncoder((4,), (3,), pool=pool)
    params = random_params(encoder, X, LENGTHS)
    run = jax.jit(lambda x: encoder.apply(params, x, jnp.asarray(LENGTHS), train=False).values)
    shuffled = X.copy()
    for i, n in enumerate(LENGTHS):
        shuffled[i, :n] = X[i, :n][::-1]
    got, expected = run(jnp.asarray(shuffled)), run(jnp.asarray(X))
    np.testing.assert_allclose(got, expected, atol=bound_difference(50))


def test_features_pass():
    vectors = Features().apply({}, jnp.asarray(X[:, 0]), train=False)
    np.testing.assert_array_equal(vectors.values[:, 0], X[:, 0])
    assert vectors.mask.shape == (3, 1) and vectors.mask.all()
    tokens = Features().apply({}, jnp.asarray(X), jnp.asarray(LENGTHS), train=False)
    np.testing.assert_array_equal(tokens.mask, np.arange(7)[None] < LENGTHS[:, None])
    np.testing.assert_array_equal(tokens.values, np.where(tokens.mask[..., None], X, 0))


class Ends(nn.Module):
    """Reads the lengths, and says whether it is training."""

    def __call__(self, x, length, train):
        ends = x[jnp.arange(len(x)), length - 1]
        return jnp.concatenate([ends, jnp.full((len(x), 1), float(train))], axis=1)


@pytest.mark.parametrize("train", [True, False])
def test_a_wrapped_module_is_told_what_it_asks_for(train):
    got = Wrap(Ends()).apply({}, jnp.asarray(X), jnp.asarray(LENGTHS), train=train)
    expected = [X[i, n - 1] for i, n in enumerate(LENGTHS)]
    np.testing.assert_array_equal(got.values[:, 0, :2], expected)
    assert (got.values[:, 0, 2] == float(train)).all()


def test_a_wrapped_module_without_lengths_gives_whole_tokens():
    got, params = Wrap(nn.Dense(3)).init_with_output(jax.random.key(0), jnp.asarray(X), train=False)
    assert got.values.shape == (3, 7, 3) and got.mask.all()
    np.testing.assert_allclose(
        got.values, X @ np.asarray(params["params"]["module"]["kernel"]), atol=1e-5
    )


def run(encoder, x, length=None):
    length = None if length is None else jnp.asarray(length)
    return encoder.init(jax.random.key(0), jnp.asarray(x), length, train=False)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Conv1dEncoder(()), "at least one filter"),
        (lambda: Conv1dEncoder(pool=0), "pool 0"),
        (lambda: TemporalConvEncoder(kernel=0), "kernel 0"),
        (lambda: TransformerEncoder(10, heads=4), "10 cannot be shared by 4"),
        (lambda: MaxoutEncoder(pieces=0), "0 pieces"),
        (lambda: DeepSetsEncoder(together=()), "together="),
        (lambda: run(Conv1dEncoder(), X[0]), "Conv1dEncoder needs sequences"),
        (lambda: run(TemporalConvEncoder(), X[0]), "TemporalConvEncoder needs sequences"),
        (lambda: run(TransformerEncoder(), X[0]), "TransformerEncoder needs sequences"),
        (lambda: run(TransformerEncoder(patch=(2, 2)), X), r"with patches needs \[b h w c\]"),
        (lambda: run(TransformerEncoder(learned_positions=6), X), "7 tokens but has 6 learned"),
        (lambda: run(DeepSetsEncoder(), X[0]), "needs sets"),
        (lambda: run(Features(), X[0, 0]), r"\[b d\] or \[b n d\]"),
        (lambda: run(Wrap(Slow(2)), X, LENGTHS), "Slow made 4 steps of 7"),
        (lambda: run(Wrap(Sum()), X), r"Sum made \(\) of|Sum made"),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class Slow(nn.Module):
    stride: int

    def __call__(self, x):
        return x[:, :: self.stride]


class Sum(nn.Module):
    def __call__(self, x):
        return x.sum()
