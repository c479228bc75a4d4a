"""Projections onto the directions that no gradient opposes, against non-negative least squares."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from mmjax import balance
from mmjax.balance.gramian.upgrad import dualproj_weights, upgrad_weights
from mmjax.balance.pullback import pullback_from_jacobian
from tests.tolerance import bound_sum_error

ROWS = np.array([[-4.0, 1, 1], [6, 1, 1]])


def projection(rows, g):
    """g + rows' z, z >= 0, the nearest point to 0: the dual problem."""
    size = np.linalg.norm(g)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return g + size * units.T @ nnls(units.T, -g / size, maxiter=10_000)[0]


def divide_by_rounding(rows, w, expected):
    """Divides the error of weighed rows by what rounding explains for one problem as for most.

    That is 1e-4 of the sum that should be, or the rounding errors of the rows weighed. It can be
    more where nearly opposed or dependent gradients leave a choice of weights. The Gramian of unit
    rows is off by g = n u at most, the objective |d|^2 / 2 by g W^2 / 2 for the weighed length W,
    and the projection on a convex cone by less than sqrt(2 g) W: that holds for every problem.
    """
    weighed = np.abs(w) @ np.linalg.norm(rows, axis=1)
    error = np.linalg.norm(w @ rows - expected)
    assert error <= np.sqrt(2 * bound_sum_error(rows.shape[1] + 4, 1)) * weighed
    return error / (1e-4 * np.linalg.norm(expected) + 2e-6 * weighed)


def assert_most_are_within_rounding(ratios):
    """All but one problem in thirty, or one at all."""
    above = np.sum(np.array(ratios) > 1)
    assert above <= max(1, len(ratios) // 30), np.sort(ratios)[-10:]


def compact(sets, least, most, every=1):
    """Every so many problems with `least` to `most` tasks, in no more slots than they need."""
    count = sets.labeled.sum(1)
    chosen = np.flatnonzero((count >= least) & (count <= most))[::every]
    order = np.argsort(~sets.labeled[chosen], axis=1, kind="stable")[:, :most]
    pick = {
        k: np.take_along_axis(getattr(sets, k)[chosen], order, 1) for k in ("losses", "labeled")
    }
    rows = np.take_along_axis(sets.rows[chosen], order[:, :, None], 1)
    return replace(sets, rows=rows, **pick)


@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_dualproj_projects_the_mean(problems, spread):
    sets = problems(spread)
    ratios = []
    for (rows, _), w in zip(sets.each(), sets.weights(dualproj_weights), strict=True):
        assert (w >= (1 - 1e-6) / len(rows)).all()
        ratios.append(divide_by_rounding(rows, w, projection(rows, rows.mean(0))))
    assert_most_are_within_rounding(ratios)


@pytest.mark.parametrize(
    ("least", "most", "every"), [(1, 12, 1), pytest.param(20, 40, 25, marks=pytest.mark.slow)]
)
def test_upgrad_is_the_mean_of_the_projections(problems, least, most, every):
    """The first draw has 192 problems, the second 14."""
    sets = compact(problems(1.0, n=640), least, most, every)
    ratios = []
    for (rows, _), w in zip(sets.each(), sets.weights(upgrad_weights), strict=True):
        expected = np.mean([projection(rows, g) for g in rows], axis=0)
        ratios.append(divide_by_rounding(rows, w, expected))
    assert_most_are_within_rounding(ratios)


def test_two_gradients_in_closed_form(weights):
    """Each loses its component along the other; then the mean. Their own mean has no conflict."""
    expected = ROWS.mean(0) + (ROWS[1] * 22 / 38 + ROWS[0] * 22 / 18) / 2
    np.testing.assert_allclose(weights(upgrad_weights, ROWS) @ ROWS, expected, rtol=1e-5)
    np.testing.assert_allclose(weights(upgrad_weights, np.abs(ROWS)), [0.5, 0.5], rtol=1e-5)
    np.testing.assert_allclose(weights(dualproj_weights, np.abs(ROWS)), [0.5, 0.5], rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "published"),
    [(balance.upgrad, [0.2929, 1.9004, 1.9004]), (balance.dualproj, [0.5563, 1.1109, 1.1109])],
)
def test_the_values_that_torchjd_publishes(make, published):
    """Its documentation's example, with its ridge."""

    @jax.jit
    def direction(rows):
        options = {"key": jax.random.key(0), "labeled": jnp.ones(2, bool)}
        pull = pullback_from_jacobian({"x": rows}, {"x": True})
        return make(1e-4).update(jnp.ones(2), pull, (), **options)[0]["x"]

    np.testing.assert_allclose(direction(ROWS.astype(np.float32)), published, atol=6e-5)


def test_a_zero_gradient_adds_nothing_to_a_small_one():
    gram = jnp.diag(jnp.array([0.0, 1e-8]))
    labeled = jnp.ones(2, bool)
    w = upgrad_weights(gram, key=jax.random.key(0), labeled=labeled)
    np.testing.assert_allclose(w, [0.5, 0.5], rtol=1e-6)
