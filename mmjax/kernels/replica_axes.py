"""Values that all replicas of a program share, where `jax.vmap` maps over the replicas."""

import contextlib

import jax
from jaxtyping import Array, Int

REPLICA_AXIS = "replicas"
REPLICA_GROUP_AXIS = "replica groups"


def remove_replica_axes(count: Int[Array, ""]) -> Int[Array, ""]:
    """Returns a count that is the same for all replicas as a value that is not mapped.

    A condition that is mapped turns `jax.lax.cond` into a selection, which computes both branches.

    Example:
      >>> from jax import numpy as jnp
      >>> def double_first(step):
      ...     is_first = remove_replica_axes(step) == 0
      ...     return jax.lax.cond(is_first, lambda x: 2 * x, lambda x: x, step + 1.0)
      >>> mapped = jax.vmap(double_first, axis_name=REPLICA_AXIS)
      >>> mapped(jnp.zeros(2, int)), "select_n" in str(jax.make_jaxpr(mapped)(jnp.zeros(2, int)))
      (Array([2., 2.], dtype=float32, weak_type=True), False)
    """
    for axis in (REPLICA_AXIS, REPLICA_GROUP_AXIS):
        with contextlib.suppress(NameError):  # which JAX raises if nothing maps over the axis
            count = jax.lax.pmax(count, axis)
    return count
