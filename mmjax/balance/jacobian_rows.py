"""Jacobians as trees: leaves [t, ...], one row per task."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mmjax.types import Params


def zero_rows(params: Params, tasks: int) -> PyTree[Array]:
    """Returns a Jacobian of zeros: one row per task, in float32."""
    return jax.tree.map(lambda p: jnp.zeros((tasks, *p.shape), jnp.float32), params)


def expand_to_rows(values: Array, leaf: Array) -> Array:
    """Reshapes one value per task to [t, 1, ...], to broadcast against a leaf."""
    return values.reshape(-1, *(1,) * (leaf.ndim - 1))


def keep_unlabeled_rows(
    new: PyTree[Array], old: PyTree[Array], labeled: Bool[Array, " t"]
) -> PyTree[Array]:
    """Returns the new rows, but the old ones of tasks without labels."""
    return jax.tree.map(lambda n, o: jnp.where(expand_to_rows(labeled, n), n, o), new, old)


def row_norms(rows: PyTree[Array]) -> Float[Array, " t"]:
    """Returns the Euclidean norms of the rows, even if their squares overflow or underflow.

    Example:
      >>> print(row_norms({"x": jnp.array([[3e30, 4e30], [0.0, 0.0]])}))
      [5.e+30 0.e+00]
    """
    flat = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(rows)]
    largest = jnp.stack([jnp.abs(x).max(1, initial=0.0) for x in flat]).max(0)
    scale = jnp.where(largest > 0, largest, 1.0)
    squares = [((x / expand_to_rows(scale, x)) ** 2).sum(1) for x in flat]
    return scale * jnp.sqrt(jnp.stack(squares).sum(0))
