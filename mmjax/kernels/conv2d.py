"""Convolution of images that is fast on CPU, even inside `lax.scan` and `vmap`."""

import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.kernels.portable import choose_by_platform
from mmjax.kernels.shifts import concatenate_shifts

Padding = Literal["SAME", "VALID"]

CACHE_BYTES = 2**20  # of patches at a time, half of a core's second-level cache (2 MB)


def conv2d(
    x: Float[Array, "c h w b"], kernel: Float[Array, "k l c o"], padding: Padding = "SAME"
) -> Float[Array, "o i j b"]:
    """Computes y[o, i, j] = Σ_{k,l,c} kernel[k, l, c, o] x[c, i + k, j + l], with stride 1.

    "SAME" pads the images with zeros, so that they keep their size; "VALID" does not.

    XLA's convolution on CPU is many times slower inside `lax.scan` (backward) and under `vmap`
    over kernels than outside, so there it is one matrix product over shifted patches. The choice
    is made when the program is lowered and leaves one branch in it.

    Example:
      >>> import jax.numpy as jnp
      >>> images, kernel = jnp.zeros((3, 28, 30, 2)), jnp.zeros((5, 5, 3, 7))
      >>> conv2d(images, kernel).shape, conv2d(images, kernel, "VALID").shape
      ((7, 28, 30, 2), (7, 24, 26, 2))
    """
    on_cpu = functools.partial(conv2d_by_patches, padding=padding)
    elsewhere = functools.partial(plain_conv2d, padding=padding)
    return choose_by_platform(x, kernel, cpu=on_cpu, plain=elsewhere)


def plain_conv2d(
    x: Float[Array, "c h w b"], kernel: Float[Array, "k l c o"], padding: Padding = "SAME"
) -> Float[Array, "o i j b"]:
    """Computes `conv2d` by XLA's own convolution: the plain version."""
    layout = ("CHWN", "HWIO", "CHWN")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=layout)


def conv2d_by_patches(
    x: Float[Array, "c h w b"], kernel: Float[Array, "k l c o"], padding: Padding = "SAME"
) -> Float[Array, "o i j b"]:
    """Computes `conv2d` as a matrix times the k*l shifted images, one below the other.

    Where an image itself comes in, of at most three channels, the patches are many times larger
    than all else. If they exceed the cache, it goes through strips of the images in turn, and the
    backward pass recomputes a strip's patches: it takes as long as to read them again, and far
    less memory. (With more channels, strips of a whole batch would save less and take a tenth
    longer; of a chunk they are faster: `conv2d_recomputing_patches`.)
    """
    x = pad_images(x, kernel.shape, padding)
    return _multiply_patches(x, kernel) if x.shape[0] > 3 else _conv2d_in_strips(x, kernel, 1.0)


@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=2)
def conv2d_recomputing_patches(
    x: Float[Array, "c h w b"], kernel: Float[Array, "k l c o"], padding: Padding
) -> Float[Array, "o i j b"]:
    """Computes `conv2d_by_patches` of a chunk of images; the backward pass recomputes the patches.

    If those of the whole chunk exceed the cache, it goes through strips of half the cache, the
    other half of which is for the rest that the products take (measured: strips of the whole cache
    or of a quarter take a tenth longer).
    """
    return _conv2d_in_strips(pad_images(x, kernel.shape, padding), kernel, 0.5)


def pad_images(
    x: Float[Array, "c h w b"], kernel_shape: Sequence[int], padding: Padding
) -> Float[Array, "c h2 w2 b"]:
    """Surrounds the images with the zeros that the padding requires."""
    if padding == "VALID":
        return x
    around = [((size - 1) // 2, size // 2) for size in kernel_shape[:2]]
    return jnp.pad(x, [(0, 0), *around, (0, 0)])


def count_lost_pixels(side: int, padding: Padding) -> int:
    """Returns how many pixels filters of a side take off the side of an image."""
    return side - 1 if padding == "VALID" else 0


def _conv2d_in_strips(
    x: Float[Array, "c h w b"], kernel: Float[Array, "k l c o"], cache_share: float
) -> Float[Array, "o i j b"]:
    """Multiplies the patches of one strip of rows after the other, if all exceed the cache.

    Args:
      x: images with their padding.
      kernel: the filters.
      cache_share: share of the cache for a strip's patches.
    """
    rows, columns, _, features = kernel.shape
    height, width, batch = x.shape[1] - rows + 1, x.shape[2] - columns + 1, x.shape[3]
    row_bytes = kernel[..., 0].size * width * batch * x.dtype.itemsize
    size = count_fitting_cache(height, row_bytes, cache_share)
    if size >= height:
        return _multiply_patches(x, kernel)
    starts = range(0, height, size)
    x = jnp.pad(x, [(0, 0), (0, -height % size), (0, 0), (0, 0)])
    # Neighboring strips overlap by rows - 1, which the filters of both see.
    strips = jnp.stack([x[:, start : start + size + rows - 1] for start in starts])
    of_strip = jax.checkpoint(_multiply_patches, prevent_cse=False)
    y = jax.lax.map(lambda strip: of_strip(strip, kernel), strips)
    return jnp.moveaxis(y, 0, 1).reshape(features, -1, width, batch)[:, :height]


def _multiply_patches(
    x: Float[Array, "c h w b"], kernel: Float[Array, "k l c o"]
) -> Float[Array, "o i j b"]:
    """Computes the convolution of padded images as one matrix product."""
    rows, columns, channels, features = kernel.shape
    # im2col in two steps, columns first, then rows, each of which copies whole slices.
    patches = concatenate_shifts(concatenate_shifts(x, columns, axis=2), rows, axis=1)
    matrix = kernel.reshape(rows * columns * channels, features)
    # [o, k l c] @ [k l c, h w b]: the batch axis stays last.
    y = matrix.T @ patches.reshape(len(matrix), -1)
    return y.reshape(features, *patches.shape[1:])


def count_fitting_cache(
    count: int, item_bytes: int, cache_share: float = 1.0, least: int = 1
) -> int:
    """Returns how many of `count` items to take at a time.

    All, if they fit twice `CACHE_BYTES`; otherwise the largest multiple of `least` that fits the
    share of `CACHE_BYTES`, or `least`.
    """
    if count * item_bytes <= 2 * CACHE_BYTES:
        return count
    return max(int(CACHE_BYTES * cache_share) // item_bytes // least, 1) * least
