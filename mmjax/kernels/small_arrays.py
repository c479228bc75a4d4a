"""Computations of small arrays in programs that the compiler partitions over groups of devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P


def compute_on_each_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function such that groups of devices do not communicate to compute it.

    If `jax.vmap` maps over groups and the compiler partitions them, a loop would go on until those
    of all groups have ended, and a decomposition would gather the matrices of all groups. Here
    each device computes everything of its own group. In programs without several groups it is the
    plain function.

    Args:
      function: of arrays, which should be small, since all devices of a group do the same work.

    Example:
      >>> import jax.numpy as jnp
      >>> compute_on_each_device(jnp.trace)(jnp.eye(3))
      Array(3., dtype=float32)
    """

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        mesh = jax.sharding.get_abstract_mesh()
        has_groups = sum(size > 1 for size in mesh.axis_sizes) > 1
        if not has_groups or set(mesh.axis_types) != {AxisType.Auto}:
            return function(*args, **options)
        on_each_device = jax.shard_map(
            lambda args, options: function(*args, **options),
            in_specs=P(),
            out_specs=P(),
            check_vma=False,  # all devices of a group compute the same
        )
        return on_each_device(args, options)

    return call
