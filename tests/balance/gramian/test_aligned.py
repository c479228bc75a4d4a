"""Aligned-MTL against the singular value decomposition of the gradients, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import balance
from mmjax.balance.gramian.aligned import aligned_weights
from mmjax.balance.jacobian_rows import gramian


def by_decomposition(rows, scale):
    """J = U S V^T: the mean of s U V^T, over the rank."""
    u, s, vt = np.linalg.svd(rows, full_matrices=False)
    rank = (s > 1e-4 * s[0]).sum()
    u, s, vt = u[:, :rank], s[:rank], vt[:rank]
    common = {"min": s[-1], "median": np.sort(s)[(rank - 1) // 2]}.get(
        scale, np.sqrt((s**2).mean())
    )
    return common * (u @ vt).mean(0)


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_the_update_is_the_mean_of_the_nearest_orthogonal_gradients(problems, scale):
    drawn = problems(spread=0.3)
    got = drawn.weights(partial(aligned_weights, scale=scale))
    for w, (rows, _) in zip(got, drawn.each(), strict=True):
        expected = by_decomposition(rows, scale)
        assert np.linalg.norm(w @ rows - expected) < 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
@pytest.mark.parametrize("ratio", [1e2, 1e3, 1e4])
def test_short_gradients_count_whatever_the_others_lengths(scale, ratio):
    """Norms that are the ratio apart; the unit gradients are independent."""
    rng = np.random.default_rng(0)

    @jax.jit
    @jax.vmap
    def weights(rows):
        options = {"key": jax.random.key(0), "labeled": jnp.ones(len(rows), bool), "scale": scale}
        return aligned_weights(gramian(rows), **options)

    for tasks in (2, 3, 8):
        rows = rng.normal(size=(40, tasks, 48)) * ratio ** rng.random((40, tasks, 1))
        rows[:, :1] *= ratio / np.linalg.norm(rows[:, :1], axis=2, keepdims=True)
        rows[:, 1:2] /= np.linalg.norm(rows[:, 1:2], axis=2, keepdims=True)
        rows = rows.astype(np.float32)
        computed = np.asarray(weights(rows), np.float64)
        for w, exact in zip(computed, rows.astype(np.float64), strict=True):
            u, s, vt = np.linalg.svd(exact, full_matrices=False)
            s = {"min": s[-1], "median": np.sort(s)[(tasks - 1) // 2]}.get(
                scale, np.sqrt((s**2).mean())
            )
            expected = s * (u @ vt).mean(0)
            error = np.linalg.norm(w @ exact - expected)
            assert error < 1e-4 * np.linalg.norm(expected)


def test_closed_forms(weights):
    """Orthogonal gradients of lengths 3 and 1 are brought to the shorter; equal ones keep."""
    np.testing.assert_allclose(
        weights(aligned_weights, [[3.0, 0], [0, 1]]), [1 / 6, 1 / 2], rtol=1e-6
    )
    # Of rank 1: one principal component, so nothing to align; the mean stays.
    same = np.array([[1.0, 2], [1, 2], [1, 2]])
    np.testing.assert_allclose(weights(aligned_weights, same) @ same, [1, 2], rtol=1e-5)
    np.testing.assert_allclose(weights(aligned_weights, [[2.0, 0]]), [1.0], rtol=1e-6)
    np.testing.assert_array_equal(weights(aligned_weights, np.zeros((3, 2))), 0)
    opposed = np.array([[1.0, 2], [-1, -2]])
    np.testing.assert_allclose(weights(aligned_weights, opposed) @ opposed, 0, atol=1e-6)


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="scale is 'max'"):
        balance.aligned("max")
