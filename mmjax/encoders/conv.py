"""A convolutional encoder of images, and the modules that it is made of."""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float, Int, Num

from mmjax.encoders.mlp import as_one_token, to_float
from mmjax.kernels.conv2d import Padding, conv2d, count_lost_pixels
from mmjax.kernels.conv_layers import ConvLayer, apply_conv_layers
from mmjax.kernels.group_norm import NormParameters, group_norm
from mmjax.types import Shape, Tokens


class ConvEncoder(nn.Module):
    """Convolution, ReLU and 2x2 max pooling per feature count, then one flat vector per image.

    The default is the textbook network: 32 3x3 filters, pool, 64 3x3 filters, pool. MultiBench's
    LeNets (Liang et al., NeurIPS 2021, arXiv:2107.07502) have `features=(6, 12, 24, 48)`,
    `kernel=(5, 3, 3, 3)` and `norm=True`, with group norm in place of their batch norm.

    Attributes:
      features: filters of each layer.
      kernel: side of the square filters, in pixels; one for all layers, or one per layer.
      width: if given, width of a last Dense + ReLU.
      padding: "SAME" puts zeros around the image, so that a convolution keeps its size; "VALID"
        does not, as in LeNet, and takes kernel - 1 pixels off each side's length.
      norm: whether a `GroupNorm` comes between convolution and ReLU.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> encoder, images = ConvEncoder((4, 8)), jnp.zeros((2, 28, 28, 1))
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), images)
      >>> tokens.values.shape  # 7 * 7 pixels of 8 channels
      (2, 1, 392)
    """

    features: tuple[int, ...] = (32, 64)
    kernel: int | tuple[int, ...] = 3
    width: int | None = None
    padding: Padding = "SAME"
    norm: bool = False

    def __post_init__(self) -> None:
        if not self.features:
            raise ValueError("ConvEncoder.features is empty; give it at least one filter count.")
        if len(self.kernels) != len(self.features):
            raise ValueError(
                f"ConvEncoder.kernel has {len(self.kernels)} sides for {len(self.features)} "
                "layers; give one for all, or one for each of `features`."
            )
        super().__post_init__()

    @property
    def kernels(self) -> tuple[int, ...]:
        """Returns the side of each layer's filters."""
        if isinstance(self.kernel, int):
            return (self.kernel,) * len(self.features)
        return tuple(self.kernel)

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps images [b h w c], uint8 or float, to one token [b 1 d]; `length` has no effect.

        Raises:
          ValueError: if x is not an image, or too small for the poolings.
        """
        del length, train
        check_image_shape(
            x.shape, [count_lost_pixels(kernel, self.padding) for kernel in self.kernels]
        )
        channels = (x.shape[-1], *self.features)
        layers = []
        for i, (filters, side) in enumerate(zip(self.features, self.kernels, strict=True)):
            kernel, bias = _Filters(filters, side, name=f"conv_{i}")(channels[i])
            norm = GroupNorm(name=f"norm_{i}").parameters(filters) if self.norm else None
            layers.append(ConvLayer(kernel, bias, norm))
        x = apply_conv_layers(to_float(x), layers, self.padding)
        if self.width is not None:
            x = nn.relu(nn.Dense(self.width, name="dense")(x))
        return as_one_token(x)


class _Filters(nn.Module):
    """Holds the parameters of a convolution: kernel (LeCun normal) and bias (zeros)."""

    features: int
    kernel: int

    @nn.compact
    def __call__(self, channels: int) -> tuple[Float[Array, "k k c o"], Float[Array, " o"]]:
        """Returns the kernel and the bias for inputs with that number of channels."""
        shape = (self.kernel, self.kernel, channels, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


class Conv(nn.Module):
    """Applies `conv2d` with parameters of its own."""

    features: int
    kernel: int = 3
    padding: Padding = "SAME"

    @nn.compact
    def __call__(self, x: Float[Array, "c h w b"]) -> Float[Array, "o i j b"]:
        """Maps [c h w b] to [features i j b]; with SAME padding i = h and j = w."""
        nn.share_scope(self, filters := _Filters(self.features, self.kernel))
        x, kernel, bias = nn.dtypes.promote_dtype(x, *filters(x.shape[0]))
        return conv2d(x, kernel, self.padding) + bias[:, None, None, None]


class GroupNorm(nn.Module):
    """Normalizes groups of channels: eight groups, or gcd(8, channels).

    Source: Wu and He, ECCV 2018 (arXiv:1803.08494).
    """

    @nn.compact
    def parameters(self, channels: int) -> NormParameters:
        """Returns a factor and an offset per channel, 1 and 0 at first."""
        scale = self.param("scale", nn.initializers.ones, (channels,))
        return NormParameters(scale, self.param("bias", nn.initializers.zeros, (channels,)))

    def __call__(self, x: Float[Array, "c h w b"]) -> Float[Array, "c h w b"]:
        """Brings each example's groups to mean 0 and variance 1, then scales and shifts them."""
        x, *norm = nn.dtypes.promote_dtype(x, *self.parameters(x.shape[0]))
        return group_norm(x, NormParameters(*norm))


def check_image_shape(shape: Shape, lost: Sequence[int], encoder: str = "ConvEncoder") -> None:
    """Raises ValueError unless the shape is [b h w c] and large enough for all poolings.

    Args:
      shape: of the images.
      lost: per pooling, how many pixels of a side the convolution before it takes off.
      encoder: name of the encoder, for the message.
    """
    if len(shape) != 4:
        raise ValueError(
            f"{encoder} needs images [b h w c] but got shape {shape}; "
            "give gray images a channel axis of 1."
        )
    need = 1  # pixels of a side that must be left after the last pooling
    for pixels in reversed(lost):
        # Backwards through the layers: pooling halves the sides, and "VALID" loses pixels before.
        need = 2 * need + pixels
    if min(shape[1:3]) < need:
        raise ValueError(
            f"An image of {shape[1]}x{shape[2]} is too small for {len(lost)} poolings, which need "
            f"{need}x{need}; give {encoder} fewer layers."
        )
