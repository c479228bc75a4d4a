"""Jacobians as trees: leaves [t, ...], one row a task."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mmjax.types import Params


def zero_rows(params: Params, tasks: int) -> PyTree[Array]:
    """A row of zeros a task."""
    return jax.tree.map(lambda p: jnp.zeros((tasks, *p.shape), jnp.float32), params)


def a_row(values: Array, leaf: Array) -> Array:
    """One value a task, shaped to go with a leaf."""
    return values.reshape(-1, *(1,) * (leaf.ndim - 1))


def keep_unlabeled_rows(
    new: PyTree[Array], old: PyTree[Array], labeled: Bool[Array, " t"]
) -> PyTree[Array]:
    """The new rows, with the old ones of tasks without labels."""
    return jax.tree.map(lambda n, o: jnp.where(a_row(labeled, n), n, o), new, old)


def row_norms(rows: PyTree[Array]) -> Float[Array, " t"]:
    """Euclidean norms of the rows, also where their squares are beyond float32."""
    flat = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(rows)]
    largest = jnp.stack([jnp.abs(x).max(1, initial=0.0) for x in flat]).max(0)
    safe = jnp.where(largest > 0, largest, 1.0)
    return safe * jnp.sqrt(jnp.stack([((x / a_row(safe, x)) ** 2).sum(1) for x in flat]).sum(0))
