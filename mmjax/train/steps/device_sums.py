"""Sums and averages over the devices that share a batch."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mmjax.types import Variables


def sum_over_devices(tree: Any, axis_name: str) -> Any:
    """Sums a tree over devices by `jax.lax.psum`; on CPU as one array, to synchronize only once.

    Integers among floats are exact only as far as floats are.
    """

    def sum_as_one(tree: Any) -> Any:
        flat, unravel = ravel_pytree(tree)
        return unravel(jax.lax.psum(flat, axis_name))

    def sum_leaves(tree: Any) -> Any:
        return jax.lax.psum(tree, axis_name)

    if jax.lax.axis_size(axis_name) == 1:
        return tree  # XLA on CPU would copy it three times
    return jax.lax.platform_dependent(tree, cpu=sum_as_one, default=sum_leaves)


def average_over_devices(variables: Variables, axis_name: str) -> Variables:
    """Averages floats over devices, so that all go on with the same; other leaves stay as they are.

    Batch statistics are equal already; what a module of the user's accumulates may differ.
    """
    leaves, treedef = jax.tree.flatten(variables)
    floats = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    if not floats:
        return variables
    devices = jax.lax.axis_size(axis_name)
    sums = iter(sum_over_devices(floats, axis_name))
    return jax.tree.unflatten(
        treedef,
        [next(sums) / devices if jnp.issubdtype(x.dtype, jnp.floating) else x for x in leaves],
    )
