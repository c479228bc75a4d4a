"""DB-MTL against its formulas on the gradients themselves, in float64."""

import numpy as np
import pytest

from mmjax import balance


def test_the_update_is_the_sum_of_equally_long_running_means(problems, run):
    """Three steps; who has labels differs from step to step."""
    steps = [problems(spread=2, seed=s) for s in range(3)]
    beta, decay = 0.7, 0.5
    got = run(balance.db_mtl(beta, decay), steps)
    for n in range(len(steps[0].rows)):
        means, count = np.zeros((40, 48)), np.zeros(40)
        for k, drawn in enumerate(steps):
            mask = drawn.labeled[n]
            rows, losses = drawn.rows[n].astype(np.float64), drawn.losses[n].astype(np.float64)
            for t in np.flatnonzero(mask):
                count[t] += 1
                old_weight = beta / count[t] ** decay
                means[t] = old_weight * means[t] + (1 - old_weight) * rows[t] / (losses[t] + 1e-8)
            norms = np.linalg.norm(means[mask], axis=1)
            expected = (norms.max() / norms) @ means[mask]
            error = np.linalg.norm(got.shared[n, k] - expected)
            assert error < 1e-4 * np.linalg.norm(expected) + 1e-5 * norms.max()
            slopes = np.where(mask, 1 / (losses + 1e-8), 0)
            np.testing.assert_allclose(got.task_specific[n, k], slopes, rtol=1e-5)
        np.testing.assert_allclose(got.state.means["s"][n], means, atol=1e-5 * np.abs(means).max())


def test_losses_of_zero_and_gradients_of_zero_give_nothing(problems, run):
    drawn = problems(n=3)
    silent = type(drawn)(0 * drawn.rows, 0 * drawn.losses, drawn.labeled)
    got = run(balance.db_mtl(), [silent, drawn])
    assert np.isfinite(got.shared).all() and np.isfinite(got.task_specific).all()
    np.testing.assert_array_equal(got.shared[:, 0], 0)
    assert np.abs(got.shared[:, 1]).max(axis=1).min() > 0


def test_beta_is_a_share():
    with pytest.raises(ValueError, match="beta is 1"):
        balance.db_mtl(beta=1.0)
