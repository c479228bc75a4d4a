"""The residual network against loops in NumPy, and its derivative against a difference of them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import ResidualEncoder

X = np.random.default_rng(0).normal(size=(2, 5, 4, 2)).astype(np.float32)


def conv(p, x):
    """SAME cross-correlation of one image [h w c], pixel by pixel."""
    kernel = p["kernel"]
    side, (h, w, _) = len(kernel), x.shape
    y = np.zeros((h, w, kernel.shape[3])) + p["bias"]
    for i, j, k, m in np.ndindex(h, w, side, side):
        row, column = i + k - (side - 1) // 2, j + m - (side - 1) // 2
        if 0 <= row < h and 0 <= column < w:
            y[i, j] += x[row, column] @ kernel[k, m]
    return y


def norm_relu(p, x):
    """Every group of channels has mean 0 and variance 1 over the image."""
    y = np.zeros_like(x)
    size = x.shape[2] // math.gcd(8, x.shape[2])
    for c in range(0, x.shape[2], size):
        group = x[:, :, c : c + size]
        y[:, :, c : c + size] = (group - group.mean()) / np.sqrt(group.var() + 1e-6)
    return np.maximum(y * p["scale"] + p["bias"], 0)


def pool(x):
    h, w, c = x.shape
    return np.array(
        [
            [
                x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(4, c).max(axis=0)
                for j in range(w // 2)
            ]
            for i in range(h // 2)
        ]
    )


def loop(encoder, params, x):
    """The last map as tokens [n d], of one image."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)["params"]
    x = conv(p["stem"], x.astype(np.float64))
    for stage in range(len(encoder.widths)):
        x = pool(x) if stage else x
        for i in range(encoder.blocks):
            block = p[f"block_{stage}_{i}"]
            y = conv(block["conv_0"], norm_relu(block["norm_0"], x))
            y = conv(block["conv_1"], norm_relu(block["norm_1"], y))
            x = y + (conv(block["shortcut"], x) if "shortcut" in block else x)
    return norm_relu(p["norm"], x).reshape(-1, x.shape[2])


@pytest.mark.parametrize(
    "encoder",
    [
        pytest.param(ResidualEncoder((3, 12)), marks=pytest.mark.slow),
        ResidualEncoder((4, 6), blocks=2, output="all"),
    ],
)
def test_values_and_gradient_are_the_loops(encoder):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), jnp.asarray(X), train=False))
    params = jax.tree.map(lambda p: jnp.asarray(0.4 * rng.normal(size=p.shape), p.dtype), shapes)
    direction = jax.tree.map(lambda p: rng.normal(size=p.shape), params)

    @jax.jit
    def derive(params):
        def total(params):
            values = encoder.apply(params, jnp.asarray(X), train=False).values
            return jnp.sin(values).sum(), values

        return jax.grad(total, has_aux=True)(params)

    def expected(by):
        near = jax.tree.map(lambda p, d: np.float64(p) + by * d, params, direction)
        rows = [loop(encoder, near, x) for x in X]
        return np.array([r.mean(axis=0)[None] for r in rows] if encoder.output == "mean" else rows)

    gradient, values = derive(params)
    np.testing.assert_allclose(values, expected(0.0), atol=1e-5)
    product = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
    difference = (np.sin(expected(1e-6)).sum() - np.sin(expected(-1e-6)).sum()) / 2e-6
    np.testing.assert_allclose(product, difference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ResidualEncoder(()), "at least one of each"),
        (lambda: ResidualEncoder(blocks=0), "0 blocks"),
        (lambda: run(ResidualEncoder(), 2, 28, 28), "ResidualEncoder needs images"),
        (lambda: run(ResidualEncoder(), 2, 3, 28, 1), "3x28 is too small for 2 poolings"),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def run(encoder, *shape):
    return encoder.init(jax.random.key(0), jnp.zeros(shape), train=False)
