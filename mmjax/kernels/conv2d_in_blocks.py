"""Convolution that returns the pixels of every 2x2 block side by side, for pooling."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.kernels.conv2d import Padding, pad_images

_FEW_FILTERS = (
    24  # filters, up to which products of four times as many rows gain more than they cost
)


def convolve_in_blocks(
    x: Float[Array, "c h w b"],
    kernel: Float[Array, "k l c o"],
    padding: Padding,
    conv: Callable[..., Array],
) -> Float[Array, "o 4 p q b"]:
    """Convolves images and returns the four pixels of every 2x2 block side by side.

    A block's pixels see a window of the image that is one pixel wider than the filters. So with the
    pixels of every block of the image as channels, this is a convolution with filters of about half
    the side, four times as many, which are zero where one of the four does not look. With 3x3
    filters it multiplies 16 numbers where the plain way has 9, and with 5x5 filters 36 instead of
    25. But it has 4/9 and 9/25 of the patches to write and read, products of four times as many
    rows, which are much faster where filters are few, and pooling compares whole arrays.

    An odd last row or column, which pooling would drop, is not computed.

    Args:
      x: images.
      kernel: the filters.
      padding: of the images.
      conv: a convolution, such as `conv2d_by_patches`.
    """
    rows, columns, channels, features = kernel.shape
    x = pad_images(x, kernel.shape, padding)
    sides = (x.shape[1] - rows + 1) // 2, (x.shape[2] - columns + 1) // 2
    window = compute_block_window(kernel.shape)
    height, width = (n + w - 1 for n, w in zip(sides, window, strict=True))
    # A negative edge crops an odd last row or column.
    edges = [(0, 2 * n - size) for n, size in zip((height, width), x.shape[1:3], strict=True)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*e, 0) for e in edges), (0, 0, 0)])
    blocks = x.reshape(channels, height, 2, width, 2, -1).transpose(2, 4, 0, 1, 3, 5)
    # Per position in a 2x2 block, the filter is padded to the window that all four share.
    margin = 2 * window[0] - rows, 2 * window[1] - columns
    filters = jnp.stack(
        [
            jnp.pad(kernel, [(down, margin[0] - down), (right, margin[1] - right), (0, 0), (0, 0)])
            for down in (0, 1)
            for right in (0, 1)
        ],
        axis=-1,
    )
    filters = filters.reshape(window[0], 2, window[1], 2, -1).swapaxes(1, 2)
    y = conv(
        blocks.reshape(4 * channels, height, width, -1),
        filters.reshape(*window, 4 * channels, 4 * features),
        "VALID",
    )
    return y.reshape(features, 4, *sides, -1)


def compute_block_window(kernel_shape: Sequence[int]) -> tuple[int, int]:
    """Returns how many blocks down and across the filters of `convolve_in_blocks` see."""
    rows, columns, *_ = kernel_shape
    return rows // 2 + 1, columns // 2 + 1


def is_faster_in_blocks(kernel_shape: Sequence[int]) -> bool:
    """Checks whether `convolve_in_blocks` is the faster way to pooling.

    It is for few filters, if it does not multiply more than twice as many numbers.
    """
    rows, columns, _, features = kernel_shape
    down, across = compute_block_window(kernel_shape)
    return features <= _FEW_FILTERS and 4 * down * across <= 2 * rows * columns
