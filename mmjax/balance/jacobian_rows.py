"""Jacobians as trees: leaves [t, ...], one row per task."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jaxtyping import Array, Bool, Float, PyTree

from mmjax.kernels.linear_algebra import precise_dot, precise_tensordot
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


def require_shared_params(tree: PyTree[Array]) -> PyTree[Array]:
    """Returns the shared parameters, or gradients with respect to them, if there are any.

    Raises:
      ValueError: if the tasks share no parameters that train.
    """
    if not jax.tree.leaves(tree):
        raise ValueError(
            "The tasks share no parameters that train, so their gradients cannot be balanced. Use "
            "a sharing other than TaskSpecific and let a shared part train, or use a balancer of "
            "losses, such as balance.equal()."
        )
    return tree


def gramian(rows: PyTree[Array]) -> Float[Array, "t t"]:
    """Returns the inner products [t t] of a tree's rows: leaves [t, ...].

    They are computed in float32 or better, at the highest precision of the device, since a Gramian
    squares the condition number.

    Raises:
      ValueError: if the tree has no leaves; see `require_shared_params`.

    Example:
      >>> print(gramian({"x": jnp.array([[1.0], [2.0]]), "y": jnp.array([[0.0], [3.0]])}))
      [[ 1.  2.]
       [ 2. 13.]]
    """

    def leaf_gramian(leaf: Array) -> Float[Array, "t t"]:
        leaf = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
        if AxisType.Auto in jax.sharding.get_abstract_mesh().axis_types:
            # The compiler may have split the rows over devices, and would gather them to flatten
            # them. So each device multiplies its part, and only the products are summed.
            axes = tuple(range(1, leaf.ndim))
            return precise_tensordot(leaf, leaf, (axes, axes))
        flat = leaf.reshape(len(leaf), -1)  # on one CPU device twice as fast
        return precise_dot(flat, flat.T)

    # G = J J^T is a sum over the leaves, since each holds some of J's columns.
    leaves = jax.tree.leaves(require_shared_params(rows))
    return sum(map(leaf_gramian, leaves[1:]), start=leaf_gramian(leaves[0]))


def weighted_sum(rows: PyTree[Array], weights: Float[Array, " t"]) -> PyTree[Array]:
    """Sums the rows with these weights: leaves [t, ...] to [...]."""
    return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, axes=1), rows)
