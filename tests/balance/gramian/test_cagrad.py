"""CAGrad against a one-dimensional search over exact least points, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar, nnls

from mmjax import balance
from mmjax.balance.gramian.cagrad import cagrad_weights
from mmjax.balance.pullback import pullback_from_jacobian

HALF = partial(cagrad_weights, c=0.5)


def least_weights(rows):
    """Weights, with sum 1, of the least point of the rows' hull."""
    lengths = np.linalg.norm(rows, axis=1) / np.linalg.norm(rows, axis=1).min()
    size = np.linalg.norm(rows[0]) / lengths[0]
    system = np.vstack([(rows / size / lengths[:, None]).T, 1 / lengths])
    x = nnls(system, np.append(np.zeros(rows.shape[1]), 1.0), maxiter=20_000)[0] / lengths
    return x / x.sum()


def direction(rows, c):
    """Weights of g_0 + k g_w with |k g_w| = c |g_0|, w making g_0 + k g_w least for the right k."""
    rows = rows @ np.linalg.svd(rows, full_matrices=False)[2].T
    mean = rows.mean(0)
    radius = c * np.linalg.norm(mean)

    def shift(log_k):
        k = np.exp(log_k)
        w = least_weights(rows + mean / k)
        return k * w, np.log(np.linalg.norm(k * w @ rows) / radius + 1e-300)

    log_k = brentq(lambda x: shift(x)[1], -14, 30, xtol=1e-13)
    return shift(log_k)[0] + 1 / len(rows)


@pytest.mark.parametrize(("spread", "lean", "c"), [(0.0, 0.0, 0.5), (1.0, 0.3, 0.4), (1, 1.5, 0.9)])
def test_the_direction_that_serves_the_worst_task_best(problems, leaning, spread, lean, c):
    sets = leaning(problems(spread), lean)
    computed = sets.weights(partial(cagrad_weights, c=c))
    for (rows, _), w in zip(sets.each(), computed, strict=True):
        expected = direction(rows, c) @ rows
        error = np.linalg.norm(w @ rows - expected)
        weighed = np.abs(w) @ np.linalg.norm(rows, axis=1)
        assert error <= 1e-4 * np.linalg.norm(rows.mean(0)) + 2e-6 * weighed


def test_two_gradients_by_a_line_search(weights):
    rng = np.random.default_rng(1)
    for _ in range(30):
        rows = rng.normal(size=(2, 3)) * 10 ** rng.uniform(-1, 1, (2, 1))
        mean = rows.mean(0)

        def worst(x, rows=rows, mean=mean):
            g = x * rows[0] + (1 - x) * rows[1]
            return g @ mean + 0.5 * np.linalg.norm(mean) * np.linalg.norm(g)

        inner = minimize_scalar(worst, bounds=(0, 1), method="bounded", options={"xatol": 1e-10})
        x = min([0.0, 1.0, inner.x], key=worst)
        g = x * rows[0] + (1 - x) * rows[1]
        expected = mean + 0.5 * np.linalg.norm(mean) * g / np.linalg.norm(g)
        computed = weights(HALF, rows) @ rows
        np.testing.assert_allclose(computed, expected, atol=2e-4 * np.linalg.norm(mean))


def test_the_value_that_torchjd_publishes(weights):
    computed = weights(HALF, [[-4, 1, 1], [6, 1, 1]]) @ [[-4, 1, 1], [6, 1, 1]]
    np.testing.assert_allclose(computed, [0.1835, 1.2041, 1.2041], atol=6e-5)


def test_the_radius(weights):
    """0 is the mean; a gradient of zero counts in the mean only; a mean of zero is kept."""
    rows = np.array([[3.0, 1], [-1, 1], [0, 0]])
    np.testing.assert_allclose(weights(partial(cagrad_weights, c=0.0), rows), [1 / 3] * 3)
    two = weights(HALF, 2 / 3 * rows[:2]) @ rows[:2] * 2 / 3
    np.testing.assert_allclose(weights(HALF, rows) @ rows, two, atol=1e-4)
    opposed = np.array([[1.0, 2], [-1, -2]])
    np.testing.assert_allclose(weights(HALF, opposed) @ opposed, 0, atol=1e-3)


def test_the_division_of_the_authors_code():
    @jax.jit
    def directions(rows):
        options = {"key": jax.random.key(0), "labeled": jnp.ones(2, bool)}
        pull = pullback_from_jacobian({"x": rows}, {"x": True})
        return [
            balance.cagrad(c=0.5, divide=divide).update(jnp.ones(2), pull, (), **options)[0]["x"]
            for divide in (False, True)
        ]

    paper, code = directions(jnp.array([[-4.0, 1, 1], [6, 1, 1]]))
    np.testing.assert_allclose(paper, 1.25 * code, rtol=1e-6)


def test_a_negative_radius_is_refused():
    with pytest.raises(ValueError, match=r"c is -1\.0; it must be 0 or more"):
        balance.cagrad(c=-1.0)
