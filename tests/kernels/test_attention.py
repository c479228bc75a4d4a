"""Products over the last axes, against NumPy in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.kernels.attention import dot_general_2d

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
