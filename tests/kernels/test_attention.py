"""Products over the last axes, against NumPy in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.kernels.attention import attend, dot_general_2d

RNG = np.random.default_rng(0)
# Shapes of x and of the kernel, and how many axes they have in common.
CASES = pytest.mark.parametrize(
    ("x", "kernel", "common"),
    [
        ((2, 3, 4), (4, 5), 1),
        ((2, 3, 4), (4, 5, 6), 1),
        ((2, 3, 5, 6), (5, 6, 4), 2),
        ((3, 4), (4, 5), 1),
        ((4,), (4, 5), 1),
        ((0, 3, 4), (4, 5), 1),
    ],
)


def numbers(common, ndim):
    return (tuple(range(ndim - common, ndim)), tuple(range(common))), ((), ())


@CASES
def test_values_and_gradients(x, kernel, common):
    x, kernel = RNG.normal(size=x), RNG.normal(size=kernel)
    wanted = np.tensordot(x, kernel, common)
    seed = RNG.normal(size=wanted.shape)

    def loss(x, kernel):
        found = dot_general_2d(x, kernel, numbers(common, x.ndim))
        return (found * seed).sum(), found

    arguments = x.astype(np.float32), kernel.astype(np.float32)
    (by_x, by_kernel), found = jax.grad(loss, (0, 1), has_aux=True)(*arguments)
    rest = x.ndim - common
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(found, wanted, **close)
    np.testing.assert_allclose(
        by_x,
        np.tensordot(seed, kernel, (range(rest, seed.ndim), range(common, kernel.ndim))),
        **close,
    )
    np.testing.assert_allclose(
        by_kernel, np.tensordot(x, seed, (range(rest), range(rest))), **close
    )
    assert by_kernel.shape == kernel.shape


def test_a_dense_layer_is_as_without_it():
    x = jnp.asarray(RNG.normal(size=(2, 3, 4)), jnp.bfloat16)
    for options in ({}, {"dtype": jnp.bfloat16}, {"use_bias": False}):
        ours, plain = nn.Dense(5, dot_general=dot_general_2d, **options), nn.Dense(5, **options)
        params = plain.init(jax.random.key(1), x)
        got, wanted = ours.apply(params, x), plain.apply(params, x)
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got.astype(jnp.float32), wanted.astype(jnp.float32), rtol=1e-2)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_and_its_gradients_are_those_of_jax(masked):
    """In float32 sums of a few numbers of order 1 differ by some rounding errors."""
    arguments = [jnp.asarray(RNG.normal(size=(2, 5, 3, 4)), jnp.float32) for _ in range(3)]
    seed = jnp.asarray(RNG.normal(size=(2, 5, 3, 4)), jnp.float32)
    mask = None
    if masked:  # the second example has one query without any key
        mask = jnp.asarray(RNG.random((2, 1, 5, 5)) < 0.6).at[:, :, :, 0].set(True)
        mask = mask.at[1, 0, 2].set(False)

    def differentiate(attention):
        y, pull = jax.vjp(lambda *qkv: attention(*qkv, mask=mask), *arguments)
        return y, *pull(seed)

    for ours, theirs in zip(
        differentiate(attend), differentiate(jax.nn.dot_product_attention), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=3e-6)


def test_attention_keeps_half_precision_and_large_logits():
    x = jnp.asarray(RNG.normal(size=(1, 4, 2, 8)), jnp.bfloat16)
    y = attend(x, x, x)
    assert y.dtype == jnp.bfloat16
    exact = jax.nn.dot_product_attention(*[x.astype(jnp.float32)] * 3)
    np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=0.03)
    sharp = attend(
        1e4 * jnp.eye(4)[None, :, None], jnp.eye(4)[None, :, None], jnp.eye(4)[None, :, None]
    )
    np.testing.assert_array_equal(sharp[0, :, 0], np.eye(4))


def test_a_kernel_with_more_rows_than_columns_has_products_of_gradients():
    """Its gradient's product is transposed on CPU; forward mode must still reach it."""
    x, kernel = (jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((7, 6), (6, 2)))

    def loss(kernel):
        return jnp.sin(dot_general_2d(x, kernel, numbers(1, 2))).sum()

    direction = jnp.ones_like(kernel)
    product = jax.jvp(jax.grad(loss), (kernel,), (direction,))[1]
    expected = -x.T @ (jnp.sin(x @ kernel) * (x @ direction))
    np.testing.assert_allclose(product, expected, atol=1e-5)
