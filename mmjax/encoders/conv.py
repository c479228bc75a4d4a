"""A convolutional encoder that is fast on every platform, inside scan and vmap too."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from mmjax.encoders.mlp import one_token, to_float
from mmjax.encoders.shifts import shifted
from mmjax.largest import largest
from mmjax.types import Tokens

Padding = Literal["SAME", "VALID"]
Layer = tuple[Float[Array, "_ _ _ _"], Float[Array, " _"]]  # kernel [k l c o], bias [o]

CACHE_BYTES = 2**20  # of patches at a time, half of a core's second cache (2 MB)
NARROWEST = 16  # images at a time: as many floats as the widest registers hold


class ConvEncoder(nn.Module):
    """For each feature count: convolution, ReLU, 2x2 max pooling; flattened channel by channel.

    The default is the textbook network: 32 3x3 filters, pool, 64 3x3 filters, pool.

    Attributes:
      features: filters of each layer.
      kernel: side of the square filters, in pixels.
      width: if given, a last Dense + ReLU of that width.
      padding: "SAME" puts zeros around the image, so that a convolution leaves its size as it is;
        "VALID" does not, as in LeNet, and takes kernel - 1 pixels off each side's length.
    """

    features: tuple[int, ...] = (32, 64)
    kernel: int = 3
    width: int | None = None
    padding: Padding = "SAME"

    def __post_init__(self) -> None:
        if not self.features:
            raise ValueError("ConvEncoder.features is empty; give it at least one filter count.")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Images [b h w c], uint8 or float, to one token [b 1 d]; `length` has no effect.

        Raises:
          ValueError: if x is not an image, or too small for the poolings.
        """
        del length, train
        lost = self.kernel - 1 if self.padding == "VALID" else 0
        check_image(x.shape, pools=len(self.features), lost=lost)
        channels = (x.shape[-1], *self.features)
        layers = [
            Filters(filters, self.kernel, name=f"conv_{i}")(channels[i])
            for i, filters in enumerate(self.features)
        ]
        x = tower(to_float(x), layers, self.padding)
        if self.width is not None:
            x = nn.relu(nn.Dense(self.width, name="dense")(x))
        return one_token(x)


class Filters(nn.Module):
    """The parameters of a convolution: kernel (LeCun normal) and bias (zeros)."""

    features: int
    kernel: int

    @nn.compact
    def __call__(self, channels: int) -> tuple[Float[Array, "k k c o"], Float[Array, " o"]]:
        """The kernel and the bias for inputs of so many channels."""
        shape = (self.kernel, self.kernel, channels, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


class Conv(nn.Module):
    """`conv2d` with its parameters."""

    features: int
    kernel: int = 3
    padding: Padding = "SAME"

    @nn.compact
    def __call__(self, x: Float[Array, "c h w b"]) -> Float[Array, "o i j b"]:
        """[c h w b] to [features i j b]; with SAME padding i = h and j = w."""
        nn.share_scope(self, filters := Filters(self.features, self.kernel))
        x, kernel, bias = nn.dtypes.promote_dtype(x, *filters(x.shape[0]))
        return conv2d(x, kernel, self.padding) + bias[:, None, None, None]


class GroupNorm(nn.Module):
    """Group normalisation in eight groups, or as many as divide both eight and the channels.

    Source: Wu and He, ECCV 2018 (arXiv:1803.08494).
    """

    @nn.compact
    def __call__(self, x: Float[Array, "c h w b"]) -> Float[Array, "c h w b"]:
        """Each example's groups of channels to mean 0 and variance 1, then scaled and shifted."""
        channels = x.shape[0]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        x, scale, bias = nn.dtypes.promote_dtype(x, scale, bias)
        groups = math.gcd(8, channels)
        grouped = x.reshape(groups, -1, x.shape[-1]).astype(jnp.float32)
        centred = grouped - grouped.mean(axis=1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.square(centred).mean(axis=1) + 1e-6)
        # For each channel and example, so that their gradients are sums of whole vectors.
        factor = scale[:, None] * inverse.repeat(channels // groups, axis=0)
        offset = jnp.broadcast_to(bias[:, None], factor.shape)
        normed = centred.reshape(x.shape) * factor[:, None, None] + offset[:, None, None]
        return normed.astype(x.dtype)


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

    Where an image itself comes in, of at most four channels, the patches are many times larger
    than all else. If they pass the cache, it goes through strips of the images in turn, and the
    backward pass makes a strip's patches anew: it takes as long as to read them again, and far
    less memory. (With more channels, strips of a whole batch would save less and take a tenth
    longer; of a chunk they are faster: `chunk_conv2d`.)
    """
    x = padded(x, kernel.shape, padding)
    return of_patches(x, kernel) if x.shape[0] > 4 else in_strips(x, kernel, CACHE_BYTES)


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


def tower(
    x: Float[Array, "b h w c"], layers: Sequence[Layer], padding: Padding = "SAME"
) -> Float[Array, "b d"]:
    """For each kernel and bias: convolution, 2x2 max pooling, ReLU; then flattened.

    On CPU a large batch goes through all layers in chunks whose patches stay in the cache, and the
    backward pass makes the patches anew, which is faster than to keep them.
    """

    def whole(
        x: Float[Array, "b h w c"], layers: Sequence[Layer], conv: Callable[..., Array]
    ) -> Float[Array, "b d"]:
        x = batch_last(x)
        for layer in layers:
            x, kernel, bias = nn.dtypes.promote_dtype(x, *layer)
            x = conv(x, kernel, padding) + bias[:, None, None, None]
            x = nn.relu(max_pool(x))  # as pooling after ReLU, which then has four times the work
        return flat(x)

    def in_chunks(x: Float[Array, "b h w c"], layers: Sequence[Layer]) -> Float[Array, "b d"]:
        batch = len(x)
        one = bytes_of_patches(x.shape, layers, padding)
        size = fitting(batch, one, CACHE_BYTES, NARROWEST)
        if batch < 2 * size:
            return whole(x, layers, patches_conv2d)
        of_chunk = functools.partial(whole, layers=layers, conv=chunk_conv2d)
        chunks = jnp.pad(x, [(0, -batch % size), (0, 0), (0, 0), (0, 0)])
        found = jax.lax.map(of_chunk, chunks.reshape(-1, size, *x.shape[1:]))
        return found.reshape(len(chunks), -1)[:batch]

    elsewhere = functools.partial(whole, conv=native_conv2d)
    return jax.lax.platform_dependent(x, layers, cpu=in_chunks, default=elsewhere)


def bytes_of_patches(shape: Sequence[int], layers: Sequence[Layer], padding: Padding) -> int:
    """What the patches of one of the images [b h w c] take in that layer where they take most."""
    _, height, width, _ = shape
    most = 0
    for kernel, _ in layers:
        rows, columns, channels, _ = kernel.shape
        if padding == "VALID":
            height, width = height - rows + 1, width - columns + 1
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


def check_image(
    shape: tuple[int, ...], pools: int, lost: int = 0, encoder: str = "ConvEncoder"
) -> None:
    """Raises ValueError unless [b h w c] can lose `lost` pixels and be halved, `pools` times."""
    if len(shape) != 4:
        raise ValueError(
            f"{encoder} needs images [b h w c] but got shape {shape}; "
            "give grey images a channel axis of 1."
        )
    need = 2**pools + lost * (2**pools - 1)
    if min(shape[1:3]) < need:
        raise ValueError(
            f"An image of {shape[1]}x{shape[2]} is too small for {pools} poolings, which need "
            f"{need}x{need}; give {encoder} fewer layers."
        )
