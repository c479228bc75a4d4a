"""The GELU against float64, SciPy's distribution function and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

from mmjax.kernels.gelu import gelu
from mmjax.kernels.portable import use_plain_kernels

X = np.concatenate([np.linspace(-12, 12, 4001), np.linspace(-1e-3, 1e-3, 101)]).astype(np.float32)
EXACT = X.astype(np.float64)
EPSILON = np.finfo(np.float32).eps


def density(x):
    return np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


def test_values_have_small_relative_errors_even_where_they_vanish():
    """x² has a rounding error of x² eps / 2, of which the exponential makes a relative error."""
    errors = np.abs(np.asarray(jax.jit(gelu)(X)) - EXACT * ndtr(EXACT))
    bound = (8 + EXACT**2) * EPSILON * np.abs(EXACT * ndtr(EXACT))
    assert (errors <= bound).all()


def test_derivatives_are_exact_to_rounding_errors_of_their_terms():
    slope = jax.jit(jax.vmap(jax.grad(gelu)))(X)
    expected = ndtr(EXACT) + EXACT * density(EXACT)
    np.testing.assert_allclose(slope, expected, atol=4 * EPSILON)
    curvature = jax.jit(jax.vmap(jax.grad(jax.grad(gelu))))(X)
    np.testing.assert_allclose(curvature, (2 - EXACT**2) * density(EXACT), atol=1e-5)
    forward = jax.jvp(gelu, (jnp.asarray(X),), (jnp.full(X.shape, 2.0),))[1]
    np.testing.assert_allclose(forward, 2 * expected, atol=8 * EPSILON)


def test_it_is_the_plain_version_and_pytorchs():
    torch, x = pytest.importorskip("torch"), jnp.asarray(X)
    with use_plain_kernels():
        plain = gelu(x)
        slope = jax.vmap(jax.grad(gelu))(x)
    bound = 4 * EPSILON * np.abs(EXACT).max()
    np.testing.assert_allclose(gelu(x), plain, atol=bound)
    np.testing.assert_allclose(jax.vmap(jax.grad(gelu))(x), slope, atol=8 * EPSILON)
    theirs = torch.nn.functional.gelu(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(gelu(x), theirs, atol=bound)


def test_limits_and_types():
    values = gelu(jnp.array([jnp.inf, -jnp.inf, jnp.nan, 1e20, -1e20, 0]))
    np.testing.assert_array_equal(values, [np.inf, 0, np.nan, np.float32(1e20), 0, 0])
    slopes = jax.vmap(jax.grad(gelu))(jnp.array([jnp.inf, -jnp.inf, 1e20, -1e20, 0]))
    np.testing.assert_allclose(slopes, [1, 0, 1, 0, 0.5], atol=EPSILON)
    half = gelu(jnp.array([-1.0, 2.0], jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), [-0.158655, 1.9545], rtol=2**-8)
    with jax.enable_x64(True):
        x = jnp.array([-3.0, 1.0], jnp.float64)
        assert gelu(x).dtype == jnp.float64
        np.testing.assert_allclose(gelu(x), x * ndtr(np.asarray(x)), rtol=1e-14)
