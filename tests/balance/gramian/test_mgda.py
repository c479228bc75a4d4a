"""The least point of the gradients' hull against non-negative least squares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from mmjax import balance
from mmjax.balance.gramian.mgda import mgda_weights
from mmjax.balance.pullback import pullback_from_jacobian


def least_point(rows):
    """The x >= 0 of the least |rows' x|^2 + (sum x - 1)^2, scaled to sum 1, times the rows."""
    shortest = np.linalg.norm(rows, axis=1).min()
    lengths = np.linalg.norm(rows, axis=1) / shortest
    system = np.vstack([(rows / shortest / lengths[:, None]).T, 1 / lengths])
    x = nnls(system, np.append(np.zeros(rows.shape[1]), 1.0), maxiter=10_000)[0] / lengths
    return x @ rows / x.sum()


def assert_weigh_to(rows, w, expected):
    """1e-4 of the sum of rows that should be, or the rounding errors of the rows weighed."""
    weighed = np.abs(w) @ np.linalg.norm(rows, axis=1)
    assert np.linalg.norm(w @ rows - expected) <= 1e-4 * np.linalg.norm(expected) + 2e-6 * weighed


@pytest.mark.parametrize("spread", [0.0, 3.0])
@pytest.mark.parametrize("lean", [0.0, 1.5])
def test_the_least_point_of_the_hull(problems, leaning, spread, lean):
    """With lean 0 most hulls hold 0; with 1.5 none does, though gradients conflict."""
    sets = leaning(problems(spread), lean)
    for (rows, _), w in zip(sets.each(), sets.weights(mgda_weights), strict=True):
        assert (w >= 0).all()
        np.testing.assert_allclose(w.sum(), 1, rtol=1e-5)
        assert_weigh_to(rows, w, least_point(rows))


def test_two_gradients_in_closed_form(weights):
    """The first has weight g2 . (g2 - g1) / |g2 - g1|^2, cut to [0, 1]."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = rng.normal(size=(2, 3)) * 10 ** rng.uniform(-3, 3, (2, 1))
        expected = np.clip(b @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        np.testing.assert_allclose(weights(mgda_weights, [a, b])[0], expected, atol=1e-4)


def test_where_there_is_nothing_to_gain(weights):
    """All weight on zero gradients, if any; equal weights on equal gradients."""
    np.testing.assert_allclose(weights(mgda_weights, [[1, 0], [0, 0], [0, 2]]), [0, 1, 0])
    np.testing.assert_allclose(weights(mgda_weights, [[0, 0], [0, 0]]), [0.5, 0.5])
    np.testing.assert_allclose(weights(mgda_weights, [[1, 1]] * 3), [1 / 3] * 3, rtol=1e-5)
    np.testing.assert_allclose(weights(mgda_weights, [[1, 1], [-2, -2]]), [2 / 3, 1 / 3], atol=1e-4)


LOSSES = np.array([0.5, 4.0, 0.0, -3.0])


@pytest.mark.parametrize(
    ("normalization", "divisors"),
    [
        ("none", lambda norms: np.ones(4)),
        ("l2", lambda norms: norms),
        ("loss", lambda norms: [0.5, 4, 1, 3]),
        ("loss+", lambda norms: np.array([0.5, 4, 0, 3]) * norms + [0, 0, 1, 0]),
    ],
)
def test_normalized_gradients(normalization, divisors):
    """The least point of the gradients that were divided; a divisor of zero is left out."""
    rows = np.random.default_rng(3).normal(size=(4, 6)) + 0.5
    by = np.asarray(divisors(np.linalg.norm(rows, axis=1)))
    expected = least_point(rows / by[:, None])

    @jax.jit
    def update(rows, losses):
        options = {"key": jax.random.key(0), "labeled": jnp.ones(4, bool)}
        pull = pullback_from_jacobian({"x": rows}, {"x": True})
        return balance.mgda(normalization).update(losses, pull, (), **options)

    gradient, w, _ = update(rows.astype(np.float32), LOSSES.astype(np.float32))
    np.testing.assert_allclose(gradient["x"], expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose((w * by).sum(), 1, rtol=1e-5)


def test_an_unknown_normalization_is_refused():
    with pytest.raises(ValueError, match="'l3'; it must be one of"):
        balance.mgda("l3")
