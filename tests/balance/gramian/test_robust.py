"""Krum and the trimmed mean against slow, obvious versions in float64."""

from functools import partial

import numpy as np
import pytest

from mmjax import balance
from mmjax.balance.gramian.robust import krum_weights


def krum_scores(rows, byzantine):
    """Each gradient's sum of squared distances to its nearest neighbors."""
    distances = ((rows[:, None] - rows[None]) ** 2).sum(-1)
    neighbors = max(len(rows) - byzantine - 2, 1)
    return np.array([np.sort(np.delete(d, i))[:neighbors].sum() for i, d in enumerate(distances)])


@pytest.mark.parametrize("byzantine, selected", [(None, 1), (2, 3)])
def test_krum_takes_the_gradients_nearest_to_their_neighbors(problems, byzantine, selected):
    drawn = problems(spread=0.5)
    got = drawn.weights(partial(krum_weights, byzantine=byzantine, selected=selected))
    compared = 0
    for w, (rows, _) in zip(got, drawn.each(), strict=True):
        t, m = len(rows), min(selected, len(rows))
        scores = krum_scores(rows, max((t - 3) // 2, 0) if byzantine is None else byzantine)
        order = np.argsort(scores)
        gap = scores[order[m]] - scores[order[m - 1]] if t > m else np.inf
        np.testing.assert_allclose(w.sum(), 1, rtol=1e-5)
        if gap > 1e-4 * (rows**2).sum():
            expected = np.zeros(t)
            expected[order[:m]] = 1 / m
            np.testing.assert_allclose(w, expected, rtol=1e-5)
            compared += 1
        # Nothing is taken that is clearly worse than the best ones that are left.
        assert scores[w > 0].max() <= scores[order[m - 1]] + 1e-4 * (rows**2).sum()
    assert compared > 40


def test_krum_in_closed_form(weights):
    """Of three the two nearest have the same score; of two both; of equal ones all."""
    near = [[1.0, 0], [1.1, 0], [-5, 3]]
    np.testing.assert_allclose(weights(krum_weights, near), [0.5, 0.5, 0])
    np.testing.assert_allclose(weights(krum_weights, near[1:]), [0.5, 0.5])
    np.testing.assert_allclose(weights(krum_weights, near[2:]), [1.0])
    np.testing.assert_allclose(weights(krum_weights, [near[0]] * 3), np.full(3, 1 / 3), rtol=1e-6)
    np.testing.assert_allclose(
        weights(krum_weights, np.zeros((3, 2))), np.full(3, 1 / 3), rtol=1e-6
    )


def test_krum_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="byzantine is 1; with 4 tasks it must be below 1"):
        balance.krum(byzantine=1).init("abcd", None)
    with pytest.raises(ValueError, match="selected is 5, but there are 4 tasks"):
        balance.krum(selected=5).init("abcd", None)
    with pytest.raises(ValueError, match="selected is 0"):
        balance.krum(selected=0)


@pytest.mark.parametrize("trim", [0, 1, 4])
def test_the_trimmed_mean_leaves_the_extremes_out(problems, run, trim):
    drawn = problems(spread=2)
    got = run(balance.trimmed_mean(trim), [drawn])
    for n, (rows, _) in enumerate(drawn.each()):
        cut = min(trim, (len(rows) - 1) // 2)
        expected = np.sort(rows, axis=0)[cut : len(rows) - cut].mean(0)
        error = np.linalg.norm(got.shared[n, 0] - expected)
        assert error < 1e-4 * np.linalg.norm(expected) + 1e-6 * np.linalg.norm(rows) / len(rows)
        np.testing.assert_array_equal(got.task_specific[n, 0], drawn.labeled[n])
        np.testing.assert_allclose(got.weights[n, 0], drawn.labeled[n] / len(rows), rtol=1e-6)


def test_one_wild_gradient_does_not_move_the_robust_ones(problems, run, weights):
    calm = np.array([[1.0, 2], [1, 2], [1e9, -1e9]])
    np.testing.assert_allclose(weights(krum_weights, calm) @ calm, [1, 2], rtol=1e-5)
    template = problems(n=40)
    rows, labeled = np.zeros_like(template.rows[:1]), np.arange(40)[None] < 3
    rows[0, :3, :2] = calm
    got = run(balance.trimmed_mean(), [type(template)(rows, template.losses[:1], labeled)])
    np.testing.assert_allclose(got.shared[0, 0, :2], [1, 2])


def test_a_negative_trim_is_refused():
    with pytest.raises(ValueError, match="trim is -1"):
        balance.trimmed_mean(-1)
