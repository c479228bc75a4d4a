"""Decompositions under `vmap`: the same values, and no deadlock."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.linear_algebra import eigh, inverse_root, svd

RNG = np.random.default_rng(0)

# Six independent decompositions of batches at once; on two cores the batched kernels of jaxlib
# 0.10.2 waited for each other within 300 rounds.
PROGRAM = """
import jax, jax.numpy as jnp
from mmjax.encoders.recurrent import gate_orthogonal

def init(key):
    return [gate_orthogonal(k, (64, 192)) for k in jax.random.split(key, 6)]

keys = jnp.stack([jax.random.key(seed) for seed in range(5)])
program = jax.jit(jax.vmap(init))
for _ in range(300):
    jax.block_until_ready(program(keys))
"""


def positive(size):
    x = RNG.normal(size=(4, size, size))
    return x @ x.swapaxes(1, 2) + np.eye(size)


def test_they_are_those_of_numpy():
    x = positive(5)
    values, vectors = jax.vmap(eigh)(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(values, np.linalg.eigvalsh(x), rtol=1e-4)
    found = np.einsum("bij,bj,bkj->bik", vectors, values, vectors)
    np.testing.assert_allclose(found, x, atol=1e-4)

    y = RNG.normal(size=(3, 4, 6))
    left, s, right = jax.vmap(svd)(jnp.asarray(y, jnp.float32))
    np.testing.assert_allclose(s, np.linalg.svd(y, compute_uv=False), rtol=1e-4)
    np.testing.assert_allclose(np.einsum("bij,bj,bjk->bik", left, s, right), y, atol=1e-5)

    root = jax.vmap(inverse_root)(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(root, np.linalg.inv(np.linalg.cholesky(x)), atol=1e-5)


def test_the_gradient_of_the_inverse_root_is_that_of_finite_differences():
    x, weights = positive(4)[0], RNG.normal(size=(4, 4))

    def value(x):
        return (weights * np.linalg.inv(np.linalg.cholesky(x)) ** 2).sum()

    def ours(x):
        return (jnp.asarray(weights, jnp.float32) * inverse_root(x) ** 2).sum()

    found = jax.grad(ours)(jnp.asarray(x, jnp.float32))
    for i in range(4):
        for j in range(i + 1):
            step = np.zeros((4, 4))
            step[i, j] = step[j, i] = 1e-5
            slope = (value(x + step) - value(x - step)) / 2e-5
            np.testing.assert_allclose((found * step).sum() / 1e-5, slope, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_recurrent_kernels_of_many_seeds_are_drawn_without_a_deadlock():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=300)
