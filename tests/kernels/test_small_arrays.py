"""Groups of devices compute what is small without each other; other programs stay as they are."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.kernels.linear_algebra import svd
from mmjax.kernels.small_arrays import compute_on_each_device
from mmjax.train.hardware.device_groups import GROUP_AXIS, make_group_mesh


def halve_until_small(x):
    """Halves a matrix until no entry is above 1; returns its singular values as well."""
    small = jax.lax.while_loop(lambda x: x.max() > 1, lambda x: x / 2, x)
    return small, svd(small)[1]


def test_groups_do_not_exchange_anything():
    """Each has its own number of iterations, and its own matrix."""
    x = jnp.array([[[3.0, 0.0], [0.0, 5.0]], [[100.0, 0.0], [0.0, 7.0]]])
    mesh = make_group_mesh(jax.devices(), 2)
    sharding = NamedSharding(mesh, P(GROUP_AXIS))
    texts = []
    for function in (halve_until_small, compute_on_each_device(halve_until_small)):
        mapped = jax.vmap(function, spmd_axis_name=GROUP_AXIS)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            program = jax.jit(mapped, in_shardings=sharding, out_shardings=sharding)
            compiled = program.lower(x).compile()
        texts.append(compiled.as_text())
    assert "all-reduce" in texts[0]  # whether any group's loop goes on
    assert not any(word in texts[1] for word in ("all-reduce", "all-gather", "collective-permute"))
    small, values = compiled(jax.device_put(x, sharding))
    np.testing.assert_array_equal(small, x / np.array([8, 128])[:, None, None])
    np.testing.assert_allclose(values, [[5 / 8, 3 / 8], [100 / 128, 7 / 128]], rtol=1e-6)


def test_programs_without_several_groups_are_not_changed():
    x = jnp.eye(2)
    expected = str(jax.make_jaxpr(halve_until_small)(x))
    assert str(jax.make_jaxpr(compute_on_each_device(halve_until_small))(x)) == expected
    mesh = make_group_mesh(jax.devices(), 1)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        traced = jax.make_jaxpr(compute_on_each_device(halve_until_small))(x)
    assert "shard_map" not in str(traced)
