"""MoCo against its recursions on the gradients themselves, in float64."""

import numpy as np
import scipy.optimize

from mmjax import balance

BETA, GAMMA, RHO = 0.5, 0.3, 0.1


def projection(point):
    """On the simplex: the threshold that leaves the sum 1, by root finding."""

    def excess(threshold):
        return np.maximum(point - threshold, 0).sum() - 1

    threshold = scipy.optimize.brentq(excess, point.max() - 1, point.max(), xtol=1e-15)
    return np.maximum(point - threshold, 0)


def test_estimates_weights_and_update_follow_the_recursions(problems, run):
    """Three steps; who has labels differs from step to step."""
    steps = [problems(spread=0.2, scale=0.3, seed=s) for s in range(3)]
    got = run(balance.moco(BETA, GAMMA, RHO), steps)
    for n in range(len(steps[0].rows)):
        estimates, weights, count = np.zeros((40, 48)), np.full(40, 1 / 40), np.zeros(40)
        for k, drawn in enumerate(steps):
            mask = drawn.labeled[n]
            rows = drawn.rows[n].astype(np.float64)
            count += mask
            slowdown = np.sqrt(count[mask])
            estimates[mask] += (BETA / slowdown)[:, None] * (rows - estimates)[mask]
            y, mass = estimates[mask], weights[mask].sum()
            w = weights[mask] / mass if mass > 0 else np.full(len(y), 1 / len(y))
            w = projection(w - GAMMA / slowdown * (y @ (y.T @ w) + RHO * w))
            weights[mask] = mass * w
            np.testing.assert_allclose(got.weights[n, k][mask], w, atol=1e-5)
            np.testing.assert_allclose(
                got.shared[n, k], w @ y, atol=1e-4 * np.linalg.norm(w @ y) + 1e-6
            )
            np.testing.assert_array_equal(got.task_specific[n, k], mask)
        np.testing.assert_allclose(got.state.weights[n], weights, atol=1e-5)
        np.testing.assert_allclose(weights.sum(), 1)


def test_it_finds_the_shortest_combination(problems, run):
    """With exact gradients and many steps, the update of MGDA: here of (2, 0) and (0, 1)."""
    template = problems(n=40)
    rows = np.zeros_like(template.rows[:1])
    rows[0, 0, 0], rows[0, 1, 1] = 2, 1
    labeled = np.arange(40)[None] < 2
    drawn = type(template)(rows, np.ones((1, 40), np.float32), labeled)
    got = run(balance.moco(decay=0.0), [drawn] * 60)
    np.testing.assert_allclose(got.weights[0, -1, :2], [0.2, 0.8], atol=1e-3)
    np.testing.assert_allclose(got.shared[0, -1, :2], [0.4, 0.8], atol=2e-3)


def test_gradients_of_any_scale_leave_the_weights_on_the_scaled_simplex(problems, run):
    steps = [problems(spread=4, n=80, seed=s) for s in range(2)]
    got = run(balance.moco(rescale=True), steps)
    tasks = np.stack([drawn.labeled.sum(1) for drawn in steps], axis=1)
    np.testing.assert_allclose(got.weights.sum(-1), tasks, rtol=1e-5)
    assert got.weights.min() >= 0
