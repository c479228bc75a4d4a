import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from mmjax.inspection.flops import count_flops
from mmjax.kernels.shifts import concatenate_shifts


def random(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def loop_shifted(x, size, axis):
    length = x.shape[axis] - size + 1
    return np.concatenate([np.take(x, range(i, i + length), axis) for i in range(size)])


def loop_unshifted(y, size, axis):
    copies = np.split(np.asarray(y), size)
    shape = list(copies[0].shape)
    length, shape[axis] = shape[axis], shape[axis] + size - 1
    total = np.zeros(shape, np.float32)
    for i, copy in enumerate(copies):
        total.swapaxes(0, axis)[i : i + length] += copy.swapaxes(0, axis)
    return total


CASES = pytest.mark.parametrize("size, axis", [(1, 1), (2, 1), (3, 2), (5, 2)])


@CASES
def test_copies_lie_below_each_other(size, axis):
    x = random(0, 2, 4, 5, 3)
    np.testing.assert_array_equal(concatenate_shifts(x, size, axis), loop_shifted(x, size, axis))
    np.testing.assert_array_equal(
        jax.jit(concatenate_shifts, static_argnums=(1, 2))(x, size, axis),
        concatenate_shifts(x, size, axis),
    )


@CASES
def test_derivatives_of_all_kinds_are_finite_differences(size, axis):
    """Of a function that is not linear, so that second derivatives are not zero."""
    x = random(0, 2, 4, 5, 3)

    def curved(x):
        return jnp.sin(concatenate_shifts(jnp.asarray(x), size, axis))

    check_grads(curved, (x,), order=2, eps=1e-2, atol=2e-2, rtol=2e-2)


@CASES
def test_the_transpose_has_the_same_inner_products(size, axis):
    """<A x, y> = <x, A' y>, and A' of A' is A again."""
    x = random(0, 2, 4, 5, 3)
    made, back = jax.vjp(lambda x: concatenate_shifts(x, size, axis), x)
    y = random(1, *made.shape)
    np.testing.assert_allclose(jnp.vdot(made, y), jnp.vdot(x, back(y)[0]), rtol=1e-4)
    again = jax.linear_transpose(lambda y: back(y)[0], y)(x)[0]
    np.testing.assert_array_equal(again, made)


@pytest.mark.parametrize("place", [0, 1, 3, 4])
def test_vmap_is_a_loop_forward_and_backward(place):
    x = random(0, 6, 2, 4, 5, 3)
    moved = jnp.moveaxis(x, 0, place)
    made, back = jax.vjp(jax.vmap(lambda x: concatenate_shifts(x, 3, 2), in_axes=place), moved)
    np.testing.assert_array_equal(made, [loop_shifted(one, 3, 2) for one in x])
    y = random(1, *made.shape)
    expected = np.moveaxis(np.stack([loop_unshifted(one, 3, 2) for one in y]), 0, place)
    np.testing.assert_array_equal(back(y)[0], expected)


def test_operations_are_the_additions_of_the_gradient():
    """Three copies [2 4 3] of [2 4 5] make 72 numbers of which 40 sums are left."""
    x = random(0, 2, 4, 5)
    assert count_flops(lambda x: concatenate_shifts(x, 3, 2), x) == 0
    y = random(1, 6, 4, 3)
    assert (
        count_flops(
            lambda y: jax.linear_transpose(lambda x: concatenate_shifts(x, 3, 2), x)(y)[0], y
        )
        == 72 - 40
    )
