"""A convolutional decoder from a vector, or a small map of features, to the size of an image."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.encoders.conv import Conv, GroupNorm
from mmjax.kernels.batch_last import to_batch_first, to_batch_last


class Decoder(nn.Module):
    """Per width doubles the size and applies convolution, group norm, ReLU; then a convolution.

    A vector first becomes a map by a Dense layer. Tokens are the pixels of a map, row after row, as
    `ResidualEncoder(output="all")` and a transformer of patches return them.

    Attributes:
      shape: rows and columns of the output.
      channels: of the output.
      features: channels after each doubling; the input map has the shape divided by
        2^len(features), rounded up.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> decoder, x = Decoder((6, 8), channels=3, features=(4,)), jnp.zeros((2, 5))
      >>> y, _ = jax.eval_shape(decoder.init_with_output, jax.random.key(0), x)
      >>> y.shape
      (2, 6, 8, 3)
    """

    shape: tuple[int, int]
    channels: int
    features: tuple[int, ...] = (32, 16)

    def __post_init__(self) -> None:
        if not self.features:
            raise ValueError("Decoder.features is empty; give it at least one width.")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."]) -> Float[Array, "b h w o"]:
        """Maps [b d] or [b n d] to [b *shape channels], at least float32.

        Raises:
          ValueError: if the number of tokens is not that of the map's pixels.
        """
        x = to_batch_last(self.small_map(x))
        for i, width in enumerate(self.features):
            x = Conv(width, name=f"conv_{i}")(_double_size(x))
            x = nn.relu(GroupNorm(name=f"norm_{i}")(x))
        # The doubled map may be larger than the shape, whose division was rounded up.
        x = Conv(self.channels, name="output")(x[:, : self.shape[0], : self.shape[1]])
        x = to_batch_first(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def small_map(self, x: Float[Array, "b ..."]) -> Float[Array, "b i j c"]:
        """Returns the input as a map."""
        # Every layer doubles the map, so the first one has the shape's sides over 2^layers.
        rows, columns = (math.ceil(side / 2 ** len(self.features)) for side in self.shape)
        if x.ndim == 2:
            x = nn.relu(nn.Dense(rows * columns * self.features[0], name="map")(x))
        elif x.ndim != 3 or x.shape[1] != rows * columns:
            raise ValueError(
                f"A decoder to {self.shape} with {len(self.features)} doublings needs a vector "
                f"[b d] or {rows}x{columns} tokens [b {rows * columns} d] but got shape {x.shape}; "
                "change the head's features, or the encoder's poolings or patches."
            )
        return x.reshape(x.shape[0], rows, columns, -1)


def _double_size(x: Float[Array, "c h w b"]) -> Float[Array, "c i j b"]:
    """Repeats every pixel as 2x2 pixels."""
    c, h, w, b = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (c, h, 2, w, 2, b)).reshape(c, 2 * h, 2 * w, b)
