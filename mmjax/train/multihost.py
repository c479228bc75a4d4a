"""Several processes: each holds its state on its own devices, and a checkpoint is all of theirs.

The arrays of a state are the same on every device. What `pmap` gives lies on the devices of one
process; Orbax wants arrays that lie on those of all.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def everywhere() -> NamedSharding:
    """A copy on every device of every process."""
    return NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec())


def wait_for_all(place: str) -> None:
    """Waits until every process of a distributed run has come to a place in the code."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(place)


def to_all(tree: Any) -> Any:
    """Each process's copy of the same arrays as one array of all processes."""

    def one(x: Any) -> Any:
        if is_key(x):
            return like_key(one(jax.random.key_data(x)), x)
        return jax.make_array_from_process_local_data(everywhere(), np.asarray(x))

    return jax.tree.map(one, tree) if jax.process_count() > 1 else tree


def to_own(tree: Any, like: Any) -> Any:
    """The arrays of all processes on this one's devices, placed as those of `like`."""

    def one(x: Any, wanted: Any) -> Any:
        own = like_key(np.asarray(jax.random.key_data(x)), x) if is_key(x) else np.asarray(x)
        return jax.device_put(own, wanted.sharding)

    return jax.tree.map(one, tree, like) if jax.process_count() > 1 else tree


def like_key(data: Any, key: Any) -> Any:
    """Raw key data as keys of the same kind."""
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))


def is_key(x: Any) -> bool:
    """Whether an array is one of random keys."""
    return bool(jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key))
