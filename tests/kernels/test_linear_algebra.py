"""Decompositions under `vmap`: the same values, and no deadlock."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.kernels.linear_algebra import (
    cho_solve,
    cholesky,
    eigh,
    inverse_cholesky,
    lu_factor,
    lu_solve,
    svd,
)

RNG = np.random.default_rng(0)

# What waited for ever on two cores as long as batches went to the batched kernels of jaxlib 0.10.2.
# Six independent decompositions of batches at once, within 300 rounds:
MANY_SEEDS = """
import jax, jax.numpy as jnp
from mmjax.encoders.recurrent import initialize_gates_orthogonally

def init(key):
    return [initialize_gates_orthogonally(k, (64, 192)) for k in jax.random.split(key, 6)]

keys = jnp.stack([jax.random.key(seed) for seed in range(5)])
program = jax.jit(jax.vmap(init))
for _ in range(300):
    jax.block_until_ready(program(keys))
"""
# A quadratic program for each of forty tasks, on two devices, in the first round:
TWO_DEVICES = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import jax.numpy as jnp
from mmjax.balance.solvers.convex import solve_nonnegative_qp

def steps(rows, linear):
    def step(total, _):
        rows_now = rows * (1 + 0 * total)
        rows_now /= jnp.linalg.norm(rows_now, axis=1, keepdims=True)
        gram = jax.lax.pmean(rows_now @ rows_now.T, "devices")
        weights = jax.vmap(solve_nonnegative_qp, (None, 0))(gram, linear).mean(axis=0)
        return (weights @ rows_now)[0], None
    return jax.lax.scan(step, jnp.zeros(()), None, length=20)[0]

keys = jax.random.split(jax.random.key(0), 2)
rows, linear = (jax.vmap(lambda k: jax.random.normal(k, s))(keys) for s in ((40, 20000), (40, 40)))
program = jax.pmap(steps, axis_name="devices")
for _ in range(10):
    jax.block_until_ready(program(rows, linear))
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

    root = jax.vmap(inverse_cholesky)(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(root, np.linalg.inv(np.linalg.cholesky(x)), atol=1e-5)


def test_the_gradient_of_the_inverse_root_is_that_of_finite_differences():
    x, weights = positive(4)[0], RNG.normal(size=(4, 4))

    def value(x):
        return (weights * np.linalg.inv(np.linalg.cholesky(x)) ** 2).sum()

    def ours(x):
        return (jnp.asarray(weights, jnp.float32) * inverse_cholesky(x) ** 2).sum()

    found = jax.grad(ours)(jnp.asarray(x, jnp.float32))
    for i in range(4):
        for j in range(i + 1):
            step = np.zeros((4, 4))
            step[i, j] = step[j, i] = 1e-5
            slope = (value(x + step) - value(x - step)) / 2e-5
            np.testing.assert_allclose((found * step).sum() / 1e-5, slope, rtol=1e-3, atol=1e-4)


def test_solutions_are_those_of_numpy():
    x, right = positive(5), RNG.normal(size=(4, 5))
    lower, b = jnp.asarray(x, jnp.float32), jnp.asarray(right, jnp.float32)
    root = jax.vmap(cholesky)(lower)
    np.testing.assert_allclose(root, np.linalg.cholesky(x), atol=1e-5)
    expected = np.linalg.solve(x, right[..., None])[..., 0]
    np.testing.assert_allclose(jax.vmap(cho_solve)(root, b), expected, atol=1e-5)
    for y in (x, x[:, ::-1]):  # the second needs its rows in another order
        factors = jax.vmap(lu_factor)(jnp.asarray(y, jnp.float32))
        expected = np.linalg.solve(y, right[..., None])[..., 0]
        np.testing.assert_allclose(jax.vmap(lu_solve)(*factors, b), expected, atol=1e-4)
        one = jnp.asarray(y[0], jnp.float32)
        of_one = jax.vmap(lu_solve, (None, None, 0))(*lu_factor(one), b)
        np.testing.assert_allclose(of_one, np.linalg.solve(y[0], right.T).T, atol=1e-4)


@pytest.mark.parametrize(("platform", "shape"), [("cpu", "3x3"), ("cuda", "4x5x3x3")])
def test_a_batch_is_a_loop_on_cpu_only(platform, shape):
    traced = jax.jit(jax.vmap(jax.vmap(cholesky))).trace(jnp.zeros((4, 5, 3, 3)))
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert re.findall(r"custom_call.*: \(tensor<(.*)xf32>\) ->", program) == [shape]


@pytest.mark.slow
@pytest.mark.parametrize("program", [MANY_SEEDS, TWO_DEVICES], ids=["many seeds", "two devices"])
def test_a_batch_does_not_wait_for_itself(program):
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
