"""The maximum over an axis and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import Conv1dEncoder, ResidualEncoder
from mmjax.kernels.max import max_over_axis

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_it_is_the_maximum_and_one_entry_gets_the_gradient(size, axis):
    x = np.moveaxis(RNG.normal(size=(3, 4, size)), -1, axis).astype(np.float32)
    cotangent = RNG.normal(size=x.max(axis).shape).astype(np.float32)
    value, pull = jax.vjp(lambda x: max_over_axis(x, axis), jnp.asarray(x))
    np.testing.assert_array_equal(value, x.max(axis))
    expected = np.zeros_like(x)
    place = np.expand_dims(x.argmax(axis), axis)
    np.put_along_axis(expected, place, np.expand_dims(cotangent, axis), axis)
    np.testing.assert_array_equal(pull(jnp.asarray(cotangent))[0], expected)


def test_of_equal_entries_exactly_one_gets_the_gradient():
    gradient = jax.grad(lambda x: max_over_axis(x, 0).sum())(jnp.zeros((5, 3)))
    np.testing.assert_array_equal(gradient.sum(0), np.ones(3))
    assert set(np.unique(gradient)) == {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "shape"),
    [
        (Conv1dEncoder(features=(6,), pool=4), (8, 16, 5)),
        (ResidualEncoder(widths=(4, 8)), (2, 4, 4, 3)),
    ],
)
def test_optimisations_leave_pooled_gradients_alone(encoder, shape):
    """With `max` over an axis, the first was wrong by four fifths of the largest entry."""
    x = jnp.asarray(RNG.normal(size=shape), jnp.float32)
    params = encoder.init(jax.random.key(0), x, train=False)
    random = jnp.asarray(RNG.normal(size=64), jnp.float32)

    def gradient(params, x):
        def loss(params, x):
            values = encoder.apply(params, x, train=False).values
            return (values @ random[: values.shape[-1]]).sum()

        return jax.grad(loss, (0, 1))(params, x)

    expected = jax.jit(gradient)(params, x)  # as the tests are compiled: without optimisations
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        found = jax.jit(lambda *args: gradient(*args))(params, x)
    finally:
        jax.config.update("jax_disable_most_optimizations", True)
    largest_one = max(float(jnp.abs(e).max()) for e in jax.tree.leaves(expected))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * largest_one)
