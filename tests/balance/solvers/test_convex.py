"""Solvers of small convex problems against SciPy and slow searches in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq, nnls, root

from mmjax.balance.solvers.convex import solve_nonnegative_qp, solve_power_equation, unit_gram
from mmjax.balance.solvers.simplex import min_norm_point, project_simplex, uniform_weights


def drawn(seed, n, slots=12, size=16):
    """n sets of up to `slots` unit rows of every rank; the slots without a row hold zeros."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((n, slots, size))
    for k in range(n):
        count = 1 + k % slots
        rank = rng.integers(1, count + 1)
        here = rng.choice(slots, count, replace=False)
        left = np.linalg.qr(rng.normal(size=(count, rank)))[0] * rng.uniform(0.3, 1, rank)
        x = left @ np.linalg.qr(rng.normal(size=(size, rank)))[0].T
        rows[k, here] = x / np.linalg.norm(x, axis=1, keepdims=True)
    return rows


def test_the_simplex(problems):
    """The w_i = max(x_i - level, 0) of sum 1, with the level computed by bisection."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 9)) * 10 ** rng.uniform(-3, 3, (300, 1))
    mask = rng.random((300, 9)) < 0.7
    mask[:, 0] = True
    computed = jax.jit(jax.vmap(project_simplex))(x.astype(np.float32), mask)
    for x_k, here, w in zip(x, mask, np.asarray(computed, np.float64), strict=True):
        y = x_k[here]
        level = brentq(lambda u, y=y: np.maximum(y - u, 0).sum() - 1, y.min() - 1, y.max())
        np.testing.assert_allclose(
            w[here], np.maximum(y - level, 0), atol=2e-6 + 2e-7 * abs(y).max()
        )
        assert not w[~here].any()
    assert not project_simplex(jnp.ones(3), jnp.zeros(3, bool)).any()
    huge = project_simplex(jnp.array([1e9, 1e9, -1e20, 3e9]), jnp.array([True, True, True, False]))
    np.testing.assert_array_equal(huge, [0.5, 0.5, 0, 0])


def test_non_negative_quadratic_programs():
    """x' a x / 2 + b' x with a = R R', b = -R y is |R' x - y|^2 / 2: least squares."""
    rows, rng = drawn(1, 240), np.random.default_rng(2)
    y = rng.normal(size=(len(rows), rows.shape[2]))
    a, b = rows @ rows.swapaxes(1, 2), -np.einsum("nij,nj->ni", rows, y)
    here = np.linalg.norm(rows, axis=2) > 0
    a[:, np.arange(12), np.arange(12)] = 1.0
    b[~here] = 1.0
    x = jax.jit(jax.vmap(solve_nonnegative_qp))(a.astype(np.float32), b.astype(np.float32))
    for rows_k, y_k, x_k in zip(rows, y, np.asarray(x, np.float64), strict=True):
        assert (x_k >= 0).all()
        # The small ridge is for the reference, which fails where rows depend on each other.
        system = np.vstack([rows_k.T, 1e-6 * np.eye(12)])
        expected = rows_k.T @ nnls(system, np.append(y_k, np.zeros(12)))[0]
        np.testing.assert_allclose(rows_k.T @ x_k, expected, atol=2e-5 * np.linalg.norm(y_k))


def test_of_many_solutions_the_one_in_the_middle():
    """Equal rows have equal coefficients."""
    x = solve_nonnegative_qp(jnp.ones((3, 3)), jnp.full(3, -1.0))
    np.testing.assert_allclose(x, np.full(3, 1 / 3), rtol=1e-4)


def test_the_least_point():
    """Against the same least squares problem, and by its own sign: R R' w >= |R' w|^2."""
    rows = drawn(3, 240) * 10 ** np.random.default_rng(4).uniform(-4, 4, (240, 1, 1))
    mask = np.linalg.norm(rows, axis=2) > 0
    gram = (rows @ rows.swapaxes(1, 2)).astype(np.float32)
    computed = np.asarray(jax.jit(jax.vmap(min_norm_point))(gram, mask), np.float64)
    for rows_k, here, w in zip(rows, mask, computed, strict=True):
        assert (w >= 0).all() and not w[~here].any()
        np.testing.assert_allclose(w.sum(), 1, rtol=1e-5)
        d, size = rows_k.T @ w, np.linalg.norm(rows_k, axis=1).max()
        assert (rows_k[here] @ d >= d @ d - 2e-5 * size * np.linalg.norm(d) - 1e-6 * size**2).all()
    assert not min_norm_point(jnp.eye(2), jnp.zeros(2, bool)).any()


@pytest.mark.parametrize("power", [0.2, 1.0, 3.0])
def test_the_power_equation(power):
    """Against SciPy's hybrid method in log x, from the solution of the diagonal."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(70, 5, 8)) + 1.5 * rng.normal(size=(70, 1, 8))
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    a, log_p = rows @ rows.swapaxes(1, 2), rng.normal(size=(70, 5))
    solve = jax.jit(jax.vmap(lambda a, p: solve_power_equation(a, p, power)))
    computed = solve(a.astype(np.float32), log_p.astype(np.float32))
    for a_k, p_k, x in zip(a, np.exp(log_p), np.asarray(computed, np.float64), strict=True):
        np.testing.assert_allclose(a_k @ x, p_k * x**-power, rtol=2e-3)
        polished = root(lambda z, a=a_k, p=p_k: a @ np.exp(z) - p * np.exp(-power * z), np.log(x))
        np.testing.assert_allclose(x, np.exp(polished.x), rtol=1e-4)


def test_unit_gradients():
    """A zero gradient has a direction of its own."""
    gram = jnp.array([[4.0, 0, 2], [0, 0, 0], [2, 0, 9]])
    cosines, norms, nonzero = unit_gram(gram)
    np.testing.assert_allclose(cosines, [[1, 0, 1 / 3], [0, 1, 0], [1 / 3, 0, 1]], rtol=1e-6)
    np.testing.assert_allclose(norms, [2, 1, 3])
    np.testing.assert_array_equal(nonzero, [True, False, True])
    np.testing.assert_allclose(uniform_weights(nonzero), [0.5, 0, 0.5])
