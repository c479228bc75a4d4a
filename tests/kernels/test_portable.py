import jax
import jax.numpy as jnp
import pytest

from mmjax.kernels.conv1d import conv1d
from mmjax.kernels.conv2d import conv2d
from mmjax.kernels.conv_layers import ConvLayer, apply_conv_layers
from mmjax.kernels.portable import use_plain_kernels


def _layers(x):
    return apply_conv_layers(x, [ConvLayer(jnp.ones((3, 3, 1, 2)), jnp.ones(2))])


KERNELS = {
    "conv1d": (lambda x: conv1d(x, jnp.ones((3, 2, 4))), (2, 6, 2)),
    "conv2d": (lambda x: conv2d(x, jnp.ones((3, 3, 2, 4))), (2, 4, 4, 5)),
    "conv_layers": (_layers, (3, 6, 6, 1)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_programs_with_plain_kernels_have_neither_patches_nor_a_choice(name):
    function, shape = KERNELS[name]
    function = jax.jit(function)  # traced before with the choice: the trace must not be reused
    fast = str(jax.make_jaxpr(function)(jnp.zeros(shape)))
    with use_plain_kernels():
        plain = str(jax.make_jaxpr(function)(jnp.zeros(shape)))
    assert "platform_index" in fast
    assert "platform_index" not in plain and "cond[" not in plain
    assert "conv_general_dilated" in plain
    assert str(jax.make_jaxpr(function)(jnp.zeros(shape))) == fast
