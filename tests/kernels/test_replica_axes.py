"""Conditions that all replicas share choose one branch for all, however replicas are mapped."""

import jax
import jax.numpy as jnp
import pytest

from mmjax.kernels.replica_axes import remove_replica_axes
from mmjax.train.hardware.parallel import map_over_replicas


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_shared_condition_is_no_selection(platform, shared):
    def advance(step):
        count = remove_replica_axes(step) if shared else step
        return jax.lax.cond(count % 2 == 0, lambda x: x + 1, lambda x: x - 2, step)

    mapped = map_over_replicas(advance, 3, (0,), platform)
    assert mapped(jnp.full(3, 4)).tolist() == [5, 5, 5]
    assert mapped(jnp.full(3, 3)).tolist() == [1, 1, 1]
    program = str(jax.make_jaxpr(mapped)(jnp.full(3, 4)))
    assert ("cond[" in program) == (shared or platform == "cpu")
