"""Jacobians as trees, row by row."""

import jax.numpy as jnp
import numpy as np

from mmjax.balance.jacobian_rows import keep_unlabeled_rows, row_norms, zero_rows


def test_norms_are_those_of_the_whole_rows_whatever_their_scale():
    rows = {"a": jnp.array([[3e25], [3e-25], [0.0]]), "b": jnp.array([[4e25], [4e-25], [0.0]])}
    np.testing.assert_allclose(row_norms(rows), [5e25, 5e-25, 0], rtol=1e-6)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 2, 4)), rng.normal(size=(3, 5))
    flat = np.concatenate([a.reshape(3, -1), b], axis=1)
    tree = {"a": jnp.asarray(a, jnp.float32), "b": jnp.asarray(b, jnp.float32), "c": None}
    np.testing.assert_allclose(row_norms(tree), np.linalg.norm(flat, axis=1), rtol=1e-5)


def test_rows_of_tasks_without_labels_stay():
    old = zero_rows({"a": jnp.ones((2, 2)), "own": None}, 3)
    new = {"a": jnp.ones((3, 2, 2)), "own": None}
    merged = keep_unlabeled_rows(new, old, jnp.array([True, False, True]))
    np.testing.assert_array_equal(merged["a"][:, 0, 0], [1, 0, 1])
