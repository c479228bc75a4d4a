"""Convolution over time that is fast on CPU, even inside `lax.scan` and `vmap`."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.kernels.portable import choose_by_platform


def conv1d(
    x: Float[Array, "b t c"],
    kernel: Float[Array, "k c o"],
    around: tuple[int, int] = (0, 0),
    dilation: int = 1,
    stride: int = 1,
) -> Float[Array, "b s o"]:
    """Computes y_s = Σ_i x_{s * stride + i * dilation} kernel_i, with zeros before and after x.

    On CPU by shifted slices times a matrix, for the reasons that `conv2d` gives.

    Args:
      x: sequences.
      kernel: the filters.
      around: numbers of zeros before and after each sequence.
      dilation: distance, in steps, between the steps that a filter sees.
      stride: distance, in steps, between the places of a filter.

    Example:
      >>> import jax.numpy as jnp
      >>> conv1d(jnp.zeros((2, 10, 3)), jnp.zeros((5, 3, 7)), around=(2, 2)).shape
      (2, 10, 7)
    """
    x = jnp.pad(x, [(0, 0), around, (0, 0)])
    on_cpu = functools.partial(conv1d_by_slices, dilation=dilation, stride=stride)
    elsewhere = functools.partial(plain_conv1d, dilation=dilation, stride=stride)
    return choose_by_platform(x, kernel, cpu=on_cpu, plain=elsewhere)


def plain_conv1d(
    x: Float[Array, "b t c"], kernel: Float[Array, "k c o"], dilation: int = 1, stride: int = 1
) -> Float[Array, "b s o"]:
    """Computes `conv1d` without zeros around by XLA's own convolution: the plain version."""
    layout = ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride,), "VALID", rhs_dilation=(dilation,), dimension_numbers=layout
    )


def conv1d_by_slices(
    x: Float[Array, "b t c"], kernel: Float[Array, "k c o"], dilation: int = 1, stride: int = 1
) -> Float[Array, "b s o"]:
    """Computes `conv1d` without zeros around as the k shifted sequences times one matrix."""
    size, channels, features = kernel.shape
    span = x.shape[1] - dilation * (size - 1)  # from the first place of a filter to its last one
    # im2col: the inputs of every output side by side, so that the convolution is one product.
    slices = [x[:, i * dilation : i * dilation + span : stride] for i in range(size)]
    return jnp.concatenate(slices, axis=-1) @ kernel.reshape(size * channels, features)
