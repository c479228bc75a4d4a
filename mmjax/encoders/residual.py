"""A residual convolutional network with group norms and pooling between its stages."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from mmjax.encoders.conv import Conv, GroupNorm, check_image_shape
from mmjax.encoders.mlp import as_one_token, to_float
from mmjax.kernels.batch_last import to_batch_first, to_batch_last
from mmjax.kernels.max import max_pool_2x2
from mmjax.types import Tokens


class ResidualEncoder(nn.Module):
    """A 3x3 convolution, then stages of residual blocks with 2x2 max pooling between them.

    Source: He et al., ECCV 2016 (arXiv:1603.05027), on pre-activation; its batch norms are group
    norms here.

    Attributes:
      widths: channels of each stage.
      blocks: residual blocks in each stage.
      output: "mean" over the last map (n = 1), or "all" of its pixels as tokens, row after row
        (n = h/2^s * w/2^s after s poolings), for attention fusions and dense prediction.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> encoder, images = ResidualEncoder((4, 8), output="all"), jnp.zeros((2, 8, 8, 1))
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), images)
      >>> tokens.values.shape
      (2, 16, 8)
    """

    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 1
    output: Literal["mean", "all"] = "mean"

    def __post_init__(self) -> None:
        if not self.widths or self.blocks < 1:
            raise ValueError(
                f"ResidualEncoder has widths {self.widths} and {self.blocks} blocks per stage; "
                "give it at least one of each."
            )
        if self.output not in ("mean", "all"):
            raise ValueError(f"ResidualEncoder.output is {self.output!r}; use 'mean' or 'all'.")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps images [b h w c], uint8 or float, to tokens [b n widths[-1]]; ignores `length`.

        Raises:
          ValueError: if x is not an image, or too small for the poolings.
        """
        del length, train
        check_image_shape(x.shape, [0] * (len(self.widths) - 1), encoder="ResidualEncoder")
        x = Conv(self.widths[0], name="stem")(to_batch_last(to_float(x)))
        for stage, width in enumerate(self.widths):
            x = max_pool_2x2(x) if stage else x
            for i in range(self.blocks):
                x = _ResidualBlock(width, name=f"block_{stage}_{i}")(x)
        x = nn.relu(GroupNorm(name="norm")(x))
        # One token per pixel of the last feature map.
        pixels = to_batch_first(x).reshape(x.shape[-1], -1, x.shape[0])
        if self.output == "mean":
            return as_one_token(pixels.mean(axis=1))
        return Tokens(pixels, jnp.ones(pixels.shape[:2], dtype=bool))


class _ResidualBlock(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))); if the width changes, x goes through a 1x1."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "c h w b"]) -> Float[Array, "o h w b"]:
        """Maps [c h w b] to [width h w b]."""
        # Pre-activation: norm and ReLU come before each convolution, and the shortcut has neither.
        y = nn.relu(GroupNorm(name="norm_0")(x))
        y = nn.relu(GroupNorm(name="norm_1")(Conv(self.width, name="conv_0")(y)))
        y = Conv(self.width, name="conv_1")(y)
        same_width = x.shape[0] == self.width
        return y + (x if same_width else Conv(self.width, kernel=1, name="shortcut")(x))
