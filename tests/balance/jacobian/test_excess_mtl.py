"""ExcessMTL against its formulas on the gradients themselves, in float64."""

import numpy as np
from scipy.special import logsumexp, softmax

from mmjax import balance

RATE = 0.2


def test_weights_grow_with_the_excess_risks(problems, run):
    """Three steps; who has labels differs from step to step."""
    steps = [problems(spread=0.3, seed=s) for s in range(3)]
    got = run(balance.excess_mtl(RATE), steps)
    for n in range(len(steps[0].rows)):
        squares, first, logs = np.zeros((40, 48)), np.zeros(40), np.zeros(40)
        for k, drawn in enumerate(steps):
            mask = drawn.labeled[n]
            rows = drawn.rows[n].astype(np.float64)
            mass = logsumexp(logs[mask])
            for t in np.flatnonzero(mask):
                squares[t] += rows[t] ** 2
                nonzero = squares[t] > 0
                risk = (rows[t] ** 2)[nonzero] @ (1 / np.sqrt(squares[t][nonzero]))
                first[t] = first[t] or risk
                logs[t] += RATE * risk / first[t]
            logs[mask] += mass - logsumexp(logs[mask])
            w = softmax(logs[mask])
            np.testing.assert_allclose(got.weights[n, k][mask], w, rtol=3e-4, atol=1e-30)
            np.testing.assert_allclose(got.task_specific[n, k][mask], w, rtol=3e-4, atol=1e-30)
            expected = w @ rows[mask]
            assert np.linalg.norm(got.shared[n, k] - expected) < 1e-4 * np.linalg.norm(
                w[:, None] * rows[mask]
            )
        assert not got.weights[n, k][~mask].any()


def test_a_task_near_its_optimum_loses_weight(problems, run):
    """Gradients of the first task fall away; those of the second stay."""
    template = problems(n=40)
    rows, labeled = np.zeros_like(template.rows[:1]), np.arange(40)[None] < 2
    rows[0, 0, 0] = rows[0, 1, 1] = 1
    losses = np.ones((1, 40), np.float32)
    falling = []
    for k in range(6):
        rows = rows.copy()
        rows[0, 0, 0] = 0.1**k
        falling.append(type(template)(rows, losses, labeled))
    got = run(balance.excess_mtl(0.1, rescale=True, weigh_heads=False), falling)
    assert (np.diff(got.weights[0, :, 0]) < 0)[1:].all()
    np.testing.assert_allclose(got.weights[0, 0, :2], 1)
    np.testing.assert_allclose(got.weights.sum(-1), 2, rtol=1e-5)
    np.testing.assert_array_equal(got.task_specific[0, :, :2], 1)
