"""Convolution, group norm and pooling as functions, fast on CPU inside scan and vmap too."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.kernels.max import largest
from mmjax.kernels.shifts import shifted

Padding = Literal["SAME", "VALID"]

CACHE_BYTES = 2**20  # of patches at a time, half of a core's second cache (2 MB)
NARROWEST = 16  # images at a time: as many floats as the widest registers hold
FEW = 24  # filters, up to which products of four times as many rows gain more than they cost


class Scale(NamedTuple):
    """The parameters of a group norm, for each channel a factor and what is added."""

    scale: Float[Array, " o"]
    bias: Float[Array, " o"]


class Layer(NamedTuple):
    """The parameters of one layer of `tower`."""

    kernel: Float[Array, "k l c o"]
    bias: Float[Array, " o"]
    norm: Scale | None = None


def group_norm(
    x: Float[Array, "c ... b"], norm: Scale, added: Float[Array, " c"] | None = None
) -> Float[Array, "c ... b"]:
    """`GroupNorm` with given parameters.

    The numbers meet their mean and variance as one factor and one offset a channel and example, so
    that the backward pass is a few sums and one pass over the array.

    Args:
      x: what to normalise; the order of an image's pixels makes no difference.
      norm: the parameters.
      added: the bias of the layer before, if x is still without it: it enters the mean, and no
        pass over the array adds it.
    """
    groups, batch = math.gcd(8, len(x)), x.shape[-1]

    def grouped(of_channels: Float[Array, " c"]) -> Float[Array, "g e 1 1"]:
        return of_channels.astype(jnp.float32).reshape(groups, -1, 1, 1)

    wide = x.astype(jnp.float32).reshape(groups, len(x) // groups, -1, batch)
    shift = grouped(jnp.zeros(len(x)) if added is None else added)
    mean = (wide.mean(axis=2, keepdims=True) + shift).mean(axis=1, keepdims=True)
    # Around a constant near the mean: the same variance and derivatives, and no path through the
    # mean that would take a pass of its own.
    near = jax.lax.stop_gradient(mean)
    squares = jnp.square(wide - (near - shift)).mean(axis=(1, 2), keepdims=True)
    variance = squares - jnp.square(mean - near)
    factor = grouped(norm.scale) * jax.lax.rsqrt(variance + 1e-6)
    offset = grouped(norm.bias) - (mean - shift) * factor
    return (wide * factor + offset).reshape(x.shape).astype(x.dtype)


def batch_last(x: Float[Array, "b h w c"]) -> Float[Array, "c h w b"]:
    """The layout of everything between images and vectors.

    Neighbours in memory are then the same pixel of several examples, so that shifting, pooling and
    normalising are arithmetic on whole vectors whatever the number of channels.
    """
    return x.transpose(3, 1, 2, 0)


def batch_first(x: Float[Array, "c h w b"]) -> Float[Array, "b h w c"]:
    """Undoes `batch_last`."""
    return x.transpose(3, 1, 2, 0)


def flat(x: Float[Array, "c h w b"]) -> Float[Array, "b c*h*w"]:
    """Each example as one vector, channel after channel.

    In this order the transposition, and that of its gradient, read what they have just read.
    """
    return x.reshape(-1, x.shape[-1]).T


def conv2d(
    x: Float[Array, "c h w b"], kernel: Float[Array, "k l c o"], padding: Padding = "SAME"
) -> Float[Array, "o i j b"]:
    """Cross-correlation with stride 1, and with zeros around (SAME) or without (VALID).

    XLA's convolution on CPU is many times slower inside `lax.scan` (backward) and under `vmap`
    over kernels than outside, so there it is one matrix product over shifted patches. The choice
    is made when the program is lowered and leaves one branch in it.
    """
    on_cpu = functools.partial(patches_conv2d, padding=padding)
    elsewhere = functools.partial(native_conv2d, padding=padding)
    return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)


def native_conv2d(
    x: Float[Array, "c h w b"], kernel: Float[Array, "k l c o"], padding: Padding = "SAME"
) -> Float[Array, "o i j b"]:
    """`conv2d` by XLA's own convolution."""
    layout = ("CHWN", "HWIO", "CHWN")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=layout)


def patches_conv2d(
    x: Float[Array, "c h w b"], kernel: Float[Array, "k l c o"], padding: Padding = "SAME"
) -> Float[Array, "o i j b"]:
    """`conv2d` as a matrix times the k*l shifted images, one below the other.

    Where an image itself comes in, of at most three channels, the patches are many times larger
    than all else. If they pass the cache, it goes through strips of the images in turn, and the
    backward pass makes a strip's patches anew: it takes as long as to read them again, and far
    less memory. (With more channels, strips of a whole batch would save less and take a tenth
    longer; of a chunk they are faster: `chunk_conv2d`.)
    """
    x = padded(x, kernel.shape, padding)
    return of_patches(x, kernel) if x.shape[0] > 3 else in_strips(x, kernel, CACHE_BYTES)


@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=2)
def chunk_conv2d(
    x: Float[Array, "c h w b"], kernel: Float[Array, "k l c o"], padding: Padding
) -> Float[Array, "o i j b"]:
    """`patches_conv2d` of a chunk of images, whose patches are made anew in the backward pass.

    If those of the whole chunk pass the cache, it goes through strips of half the cache, the other
    half of which is for the rest that the products take (measured: strips of the whole cache or
    of a quarter take a tenth longer).
    """
    return in_strips(padded(x, kernel.shape, padding), kernel, CACHE_BYTES // 2)


def padded(
    x: Float[Array, "c h w b"], kernel_shape: Sequence[int], padding: Padding
) -> Float[Array, "c h2 w2 b"]:
    """The images with the zeros around them that the padding asks for."""
    if padding == "VALID":
        return x
    around = [((size - 1) // 2, size // 2) for size in kernel_shape[:2]]
    return jnp.pad(x, [(0, 0), *around, (0, 0)])


def lost(side: int, padding: Padding) -> int:
    """Pixels that filters of a side take off that of an image."""
    return side - 1 if padding == "VALID" else 0


def in_strips(
    x: Float[Array, "c h w b"], kernel: Float[Array, "k l c o"], room: int
) -> Float[Array, "o i j b"]:
    """`of_patches`, strip after strip of the images if all patches pass the cache.

    Args:
      x: images with their padding.
      kernel: the filters.
      room: bytes for a strip's patches.
    """
    rows, columns, _, features = kernel.shape
    height, width, batch = x.shape[1] - rows + 1, x.shape[2] - columns + 1, x.shape[3]
    size = fitting(height, kernel[..., 0].size * width * batch * x.dtype.itemsize, room)
    if size >= height:
        return of_patches(x, kernel)
    starts = range(0, height, size)
    x = jnp.pad(x, [(0, 0), (0, -height % size), (0, 0), (0, 0)])
    strips = jnp.stack([x[:, start : start + size + rows - 1] for start in starts])
    of_strip = jax.checkpoint(of_patches, prevent_cse=False)
    found = jax.lax.map(lambda strip: of_strip(strip, kernel), strips)
    return jnp.moveaxis(found, 0, 1).reshape(features, -1, width, batch)[:, :height]


def of_patches(
    x: Float[Array, "c h w b"], kernel: Float[Array, "k l c o"]
) -> Float[Array, "o i j b"]:
    """`patches_conv2d` in one go, without padding."""
    rows, columns, channels, features = kernel.shape
    patches = shifted(shifted(x, columns, axis=2), rows, axis=1)
    matrix = kernel.reshape(rows * columns * channels, features)
    found = matrix.T @ patches.reshape(len(matrix), -1)
    return found.reshape(features, *patches.shape[1:])


def fitting(count: int, bytes_of_one: int, room: int, least: int = 1) -> int:
    """How many of `count` things to take at a time.

    All, if they fit the cache (twice `CACHE_BYTES`); otherwise the largest multiple of `least` that
    fits the room, or `least`.
    """
    if count * bytes_of_one <= 2 * CACHE_BYTES:
        return count
    return max(room // bytes_of_one // least, 1) * least


def blocks_conv2d(
    x: Float[Array, "c h w b"],
    kernel: Float[Array, "k l c o"],
    padding: Padding,
    conv: Callable[..., Array],
) -> Float[Array, "o 4 p q b"]:
    """The convolution with the four pixels of every 2x2 block side by side, as pooling wants them.

    A block's pixels see a window of the image that is one pixel wider than the filters. So with the
    pixels of every block of the image as channels, this is a convolution with filters of about half
    the side, four times as many, which are zero where one of the four does not look. Of 3x3 filters
    it multiplies 16 numbers where the plain way has 9, and of 5x5 filters 36 for 25. But it has
    4/9 and 9/25 of the patches to write and read, products of four times as many rows, which are
    much faster where filters are few, and pooling compares whole arrays.

    An odd last row or column, which pooling would drop, is not computed.

    Args:
      x: images.
      kernel: the filters.
      padding: of the images.
      conv: a plain convolution, such as `patches_conv2d`.
    """
    rows, columns, channels, features = kernel.shape
    x = padded(x, kernel.shape, padding)
    sides = (x.shape[1] - rows + 1) // 2, (x.shape[2] - columns + 1) // 2
    window = block_window(kernel.shape)
    height, width = (n + w - 1 for n, w in zip(sides, window, strict=True))
    edges = [(0, 2 * n - size) for n, size in zip((height, width), x.shape[1:3], strict=True)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*e, 0) for e in edges), (0, 0, 0)])
    blocks = x.reshape(channels, height, 2, width, 2, -1).transpose(2, 4, 0, 1, 3, 5)
    room = 2 * window[0] - rows, 2 * window[1] - columns
    filters = jnp.stack(
        [
            jnp.pad(kernel, [(down, room[0] - down), (right, room[1] - right), (0, 0), (0, 0)])
            for down in (0, 1)
            for right in (0, 1)
        ],
        axis=-1,
    )
    filters = filters.reshape(window[0], 2, window[1], 2, -1).swapaxes(1, 2)
    found = conv(
        blocks.reshape(4 * channels, height, width, -1),
        filters.reshape(*window, 4 * channels, 4 * features),
        "VALID",
    )
    return found.reshape(features, 4, *sides, -1)


def block_window(kernel_shape: Sequence[int]) -> tuple[int, int]:
    """How many blocks down and across the filters of `blocks_conv2d` see."""
    rows, columns, *_ = kernel_shape
    return rows // 2 + 1, columns // 2 + 1


def blocks_pay(kernel_shape: Sequence[int]) -> bool:
    """Whether `blocks_conv2d` is the faster way to pooling: few filters, not twice the work."""
    rows, columns, _, features = kernel_shape
    down, across = block_window(kernel_shape)
    return features <= FEW and 4 * down * across <= 2 * rows * columns


def tower(
    x: Float[Array, "b h w c"], layers: Sequence[Layer], padding: Padding = "SAME"
) -> Float[Array, "b d"]:
    """For each layer: convolution, group norm if it has one, 2x2 max pooling, ReLU; then flattened.

    On CPU a large batch goes through all layers in chunks whose patches stay in the cache, and the
    backward pass makes the patches anew, which is faster than to keep them. (With norms, which need
    passes of their own, it would be slower.)
    """

    def whole(
        x: Float[Array, "b h w c"], layers: Sequence[Layer], conv: Callable[..., Array]
    ) -> Float[Array, "b d"]:
        x = batch_last(x)
        for layer in layers:
            x = pooled(x, layer, padding, conv)
        return flat(x)

    def in_chunks(x: Float[Array, "b h w c"], layers: Sequence[Layer]) -> Float[Array, "b d"]:
        batch = len(x)
        one = bytes_of_patches(x.shape, layers, padding)
        size = fitting(batch, one, CACHE_BYTES, NARROWEST)
        if batch < 2 * size or any(layer.norm for layer in layers):
            return whole(x, layers, patches_conv2d)
        of_chunk = functools.partial(whole, layers=layers, conv=chunk_conv2d)
        chunks = jnp.pad(x, [(0, -batch % size), (0, 0), (0, 0), (0, 0)])
        found = jax.lax.map(of_chunk, chunks.reshape(-1, size, *x.shape[1:]))
        return found.reshape(len(chunks), -1)[:batch]

    elsewhere = functools.partial(whole, conv=native_conv2d)
    return jax.lax.platform_dependent(x, layers, cpu=in_chunks, default=elsewhere)


def pooled(
    x: Float[Array, "c h w b"], layer: Layer, padding: Padding, conv: Callable[..., Array]
) -> Float[Array, "o p q b"]:
    """One layer of `tower`, with a convolution of choice.

    ReLU comes after pooling, which gives the same as before it and has a quarter of the work; so
    does the bias, unless a norm takes it.
    """
    x, kernel, bias, *norm = nn.dtypes.promote_dtype(
        x, layer.kernel, layer.bias, *(layer.norm or ())
    )
    blocks = conv is not native_conv2d and blocks_pay(kernel.shape)
    if norm and blocks:  # The norm sees the odd rows and columns that pooling drops.
        sides = zip(x.shape[1:3], kernel.shape[:2], strict=True)
        blocks = all((length - lost(side, padding)) % 2 == 0 for length, side in sides)
    y = blocks_conv2d(x, kernel, padding, conv) if blocks else conv(x, kernel, padding)
    if norm:
        y = group_norm(y, Scale(*norm), bias)
    found = largest(y, axis=1) if blocks else max_pool(y)
    return nn.relu(found if norm else found + bias[:, None, None, None])


def bytes_of_patches(shape: Sequence[int], layers: Sequence[Layer], padding: Padding) -> int:
    """What the patches of one of the images [b h w c] take in that layer where they take most."""
    _, height, width, _ = shape
    most = 0
    for kernel, *_ in layers:
        rows, columns, channels, _ = kernel.shape
        height, width = height - lost(rows, padding), width - lost(columns, padding)
        if blocks_pay(kernel.shape):
            rows, columns = block_window(kernel.shape)
        patches = rows * columns * channels * height * width * kernel.dtype.itemsize
        most, height, width = max(most, patches), height // 2, width // 2
    return most


def max_pool(x: Float[Array, "c h w b"]) -> Float[Array, "c p q b"]:
    """2x2 max pooling of stride 2; an odd last row or column is dropped.

    Rows come first, so that the gradient puts whole rows together, and single pixels only where
    half of them are left.
    """
    c, h, w, b = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2]
    return largest(largest(x.reshape(c, h // 2, 2, w // 2, 2, b), axis=2), axis=3)
