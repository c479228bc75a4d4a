"""A convolutional encoder that is fast on every platform, inside scan and vmap too."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from mmjax.encoders.mlp import one_token, to_float
from mmjax.types import Tokens


class ConvEncoder(nn.Module):
    """For each feature count: convolution (SAME), ReLU, 2x2 max pooling; then flattened.

    The default is the textbook network: 32 3x3 filters, pool, 64 3x3 filters, pool.

    Attributes:
      features: filters of each layer.
      kernel: side of the square filters, in pixels.
      width: if given, a last Dense + ReLU of that width.
    """

    features: tuple[int, ...] = (32, 64)
    kernel: int = 3
    width: int | None = None

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
        check_image(x.shape, pools=len(self.features))
        x = to_float(x)
        for i, filters in enumerate(self.features):
            x = max_pool(nn.relu(Conv(filters, self.kernel, name=f"conv_{i}")(x)))
        x = x.reshape(x.shape[0], -1)
        if self.width is not None:
            x = nn.relu(nn.Dense(self.width, name="dense")(x))
        return one_token(x)


class Conv(nn.Module):
    """`conv2d` with its parameters: kernel (LeCun normal) and bias (zeros)."""

    features: int
    kernel: int = 3

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        """[b h w c] to [b h w features], same height and width."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias)
        return conv2d(x, kernel) + bias[None, None, None]


def conv2d(x: Float[Array, "b h w c"], kernel: Float[Array, "k l c o"]) -> Float[Array, "b h w o"]:
    """Cross-correlation with stride 1 and SAME zero padding.

    XLA's convolution on CPU is many times slower inside `lax.scan` (backward) and under `vmap`
    over kernels than outside, so there it is one matrix product over shifted patches. The choice
    is made when the program is lowered and leaves one branch in it.
    """
    return jax.lax.platform_dependent(x, kernel, cpu=patches_conv2d, default=native_conv2d)


def native_conv2d(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k l c o"]
) -> Float[Array, "b h w o"]:
    """`conv2d` by XLA's own convolution."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def patches_conv2d(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k l c o"]
) -> Float[Array, "b h w o"]:
    """`conv2d` as the k*l shifted images, side by side, times a matrix."""
    rows, columns, channels, features = kernel.shape
    height, width = x.shape[1:3]
    around = [((size - 1) // 2, size // 2) for size in (rows, columns)]
    x = jnp.pad(x, [(0, 0), *around, (0, 0)])
    shifted = [x[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
    patches = jnp.concatenate(shifted, axis=-1)
    return patches @ kernel.reshape(rows * columns * channels, features)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b p q c"]:
    """2x2 max pooling of stride 2; an odd last row or column is dropped.

    By reshape and max, whose backward pass is much faster on CPU than that of `reduce_window`.
    Where several of the four share the maximum, as zeros after a ReLU do, the gradient is split
    evenly among them.
    """
    b, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2]
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


def check_image(shape: tuple[int, ...], pools: int) -> None:
    """Raises ValueError unless [b h w c] can be halved `pools` times."""
    if len(shape) != 4:
        raise ValueError(
            f"ConvEncoder needs images [b h w c] but got shape {shape}; "
            "give grey images a channel axis of 1."
        )
    if min(shape[1:3]) < 2**pools:
        raise ValueError(
            f"An image of {shape[1]}x{shape[2]} is too small for {pools} poolings, which need "
            f"{2**pools}x{2**pools}; give ConvEncoder fewer features."
        )
