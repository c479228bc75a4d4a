"""ConvNeXt: convolutional networks with the design of transformers, versions 1 and 2."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from mmjax.encoders.mlp import as_one_token
from mmjax.kernels.gelu import gelu
from mmjax.layers.dropout import Dropout
from mmjax.pretrained.backbones.patches import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    cast_to_kernel,
    check_image,
    normalize_pixels,
)
from mmjax.pretrained.backbones.rename_layers import rename_conv, rename_linear, rename_norm
from mmjax.pretrained.backbones.transformer_layers import check_choice, make_layer_norm
from mmjax.pretrained.renaming import Rename
from mmjax.types import Tokens

_EPSILON = 1e-6  # of all norms but the last one


class ConvNeXt(nn.Module):
    """Patches, then stages of depthwise 7x7 convolutions and MLPs, halving the map in between.

    Source: Liu et al., CVPR 2022 (arXiv:2201.03545); version 2 Woo et al., CVPR 2023
    (arXiv:2301.00808).

    Attributes:
      blocks: number of blocks of each stage; the default is ConvNeXt-T.
      widths: channels of each stage.
      patch: side of the first patches, in pixels; rows and columns that fill none are cut off, here
        and where a map is halved.
      response_norm: whether blocks are those of version 2, with global response norm instead of
        layer scale.
      drop_path: rate at which training skips the last block for an example; for the blocks before
        it, the rate grows linearly from 0.
      output: "mean" over the last map (n = 1), or "all" of its pixels as tokens, row after row;
        both after a layer norm.
      remat: whether the backward pass recomputes each block, to save memory.
      mean: subtracted from the pixels, which uint8 images bring to [0, 1] and floats hold so.
      std: what pixels are divided by then.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> encoder, images = ConvNeXt((1, 1), (4, 8), output="all"), jnp.zeros((2, 33, 24, 3))
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), images)
      >>> tokens.values.shape
      (2, 12, 8)
    """

    blocks: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    patch: int = 4
    response_norm: bool = False
    drop_path: float = 0.0
    output: Literal["mean", "all"] = "mean"
    remat: bool = False
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not self.blocks or min(self.blocks) < 1 or len(self.blocks) != len(self.widths):
            raise ValueError(
                f"ConvNeXt has blocks {self.blocks} for widths {self.widths}; give both one entry "
                "of at least 1 per stage."
            )
        check_choice("ConvNeXt.output", self.output, ("mean", "all"))
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps images [b h w c], uint8 or float, to tokens [b n widths[-1]]; ignores `length`.

        Raises:
          ValueError: if x is not an image of as many channels as `mean`, or so small that the last
            stage has no pixel.
        """
        del length
        smallest = self.patch * 2 ** (len(self.widths) - 1)
        check_image(x.shape, smallest, len(self.mean), "ConvNeXt")
        make_block = nn.remat(_ConvNeXtBlock, static_argnums=(2,)) if self.remat else _ConvNeXtBlock
        x, index = normalize_pixels(x, self.mean, self.std), 0
        for stage, (count, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            if stage == 0:
                x = _shrink(width, self.patch, "stem")(x)
                x = make_layer_norm(_EPSILON, "stem_norm")(x)
            else:
                x = make_layer_norm(_EPSILON, f"downsample_norm_{stage}")(x)
                x = _shrink(width, 2, f"downsample_{stage}")(x)
            for i in range(count):
                rate = self.drop_path * index / max(sum(self.blocks) - 1, 1)
                x = make_block(self.response_norm, rate, name=f"block_{stage}_{i}")(x, train)
                index += 1
        norm = make_layer_norm(1e-12, "norm")
        if self.output == "mean":
            return as_one_token(norm(x.mean(axis=(1, 2))))
        pixels = norm(x.reshape(x.shape[0], -1, x.shape[-1]))
        return Tokens(pixels, jnp.ones(pixels.shape[:2], dtype=bool))


def _shrink(features: int, factor: int, name: str) -> nn.Conv:
    """Makes a convolution over squares that do not overlap."""
    square = (factor, factor)
    return nn.Conv(
        features, square, square, padding="VALID", promote_dtype=cast_to_kernel, name=name
    )


class _ConvNeXtBlock(nn.Module):
    """x + MLP(norm(depthwise convolution of x)), with layer scale or global response norm."""

    response_norm: bool
    drop_path: float

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        """Maps [b h w c] to the same shape."""
        width = x.shape[-1]
        y = nn.Conv(width, (7, 7), padding=3, feature_group_count=width, name="depthwise")(x)
        y = make_layer_norm(_EPSILON, "norm")(y)
        y = gelu(nn.Dense(4 * width, name="mlp_in")(y))
        if self.response_norm:
            y = _GlobalResponseNorm(name="response_norm")(y)
        y = nn.Dense(width, name="mlp_out")(y)
        if not self.response_norm:
            scale = self.param("layer_scale", nn.initializers.constant(1e-6), (width,))
            y = y * scale.astype(y.dtype)[None, None, None]
        # One draw per example: a block is skipped as a whole.
        return x + Dropout(self.drop_path, shared=(1, 2, 3))(y, train=train)


class _GlobalResponseNorm(nn.Module):
    """x + scale * x * (norm of a channel over the map / mean of all channels' norms) + bias."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Maps [b h w c] to the same shape."""
        scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x, scale, bias = nn.dtypes.promote_dtype(x, scale, bias)
        squares = jnp.square(x.astype(jnp.float32)).sum(axis=(1, 2), keepdims=True)
        # The gradient of a root at 0 is infinite; the root of the minimum is far below the 1e-6.
        size = jnp.sqrt(jnp.maximum(squares, 1e-30))
        relative = (size / (size.mean(axis=-1, keepdims=True) + 1e-6)).astype(x.dtype)
        return x + scale[None, None, None] * (x * relative) + bias[None, None, None]


def convnext_names() -> tuple[Rename, ...]:
    """Returns the names in files of Hugging Face's ConvNeXt and ConvNeXt V2.

    Example:
      >>> convnext_names()[0].path
      'stem/kernel'
    """
    stage, block = "*encoder.stages.{stage}", "*encoder.stages.{stage}.layers.{layer}"
    path = "block_{stage}_{layer}"
    return (
        *rename_conv("*embeddings.patch_embeddings", "stem"),
        *rename_norm("*embeddings.layernorm", "stem_norm"),
        *rename_norm(f"{stage}.downsampling_layer.0", "downsample_norm_{stage}"),
        *rename_conv(f"{stage}.downsampling_layer.1", "downsample_{stage}"),
        *rename_conv(f"{block}.dwconv", f"{path}/depthwise"),
        *rename_norm(f"{block}.layernorm", f"{path}/norm"),
        *rename_linear(f"{block}.pwconv1", f"{path}/mlp_in"),
        *rename_linear(f"{block}.pwconv2", f"{path}/mlp_out"),
        Rename(f"{block}.layer_scale_parameter", f"{path}/layer_scale"),
        Rename(f"{block}.grn.weight", f"{path}/response_norm/scale", "reshape"),
        Rename(f"{block}.grn.bias", f"{path}/response_norm/bias", "reshape"),
        *rename_norm("*layernorm", "norm"),
        Rename("classifier.*", None),
    )
