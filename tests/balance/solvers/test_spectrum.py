"""The spectrum up to the numerical rank, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.balance.jacobian_rows import gramian
from mmjax.balance.solvers.spectrum import pinv_solve, truncated_eigh


def test_the_rank_is_found_and_the_pseudo_inverse_with_it(problems):
    """The right sides lie in the range, as J y does: the solution of least norm is exact there."""
    drawn = problems(n=120)
    y = np.random.default_rng(0).normal(size=48).astype(np.float32)

    @jax.jit
    @jax.vmap
    def program(rows):
        gram = gramian(rows)
        return truncated_eigh(gram).significant.sum(), pinv_solve(gram, rows @ y)

    ranks, solutions = (np.asarray(x, np.float64) for x in program(drawn.rows))
    for rank, w, labeled, (rows, _) in zip(
        ranks, solutions, drawn.labeled, drawn.each(), strict=True
    ):
        s = np.linalg.svd(rows, compute_uv=False)
        assert rank == (s > 1e-5 * s[0]).sum()
        expected = np.linalg.pinv(rows @ rows.T, rcond=1e-9, hermitian=True) @ rows @ y
        assert np.linalg.norm(w[labeled] - expected) < 1e-3 * np.linalg.norm(expected)


def test_a_gramian_of_zeros_has_rank_zero():
    assert not truncated_eigh(jnp.zeros((3, 3))).significant.any()
    np.testing.assert_array_equal(pinv_solve(jnp.zeros((3, 3)), jnp.ones(3)), 0)
