"""ResNet: residual convolutional networks with batch norm."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from mmjax.encoders.mlp import as_one_token
from mmjax.pretrained.backbones.patches import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    cast_to_kernel,
    check_image,
    normalize_pixels,
)
from mmjax.pretrained.backbones.rename_layers import rename_norm
from mmjax.pretrained.backbones.transformer_layers import check_choice
from mmjax.pretrained.renaming import Rename
from mmjax.types import Tokens


class ResNet(nn.Module):
    """A strided 7x7 convolution, max pooling, then stages of residual blocks with batch norm.

    Source: He et al., CVPR 2016 (arXiv:1512.03385). In bottleneck blocks the 3x3 convolution has
    the stride, as in the weights that torchvision and Hugging Face distribute ("v1.5").

    Attributes:
      blocks: number of residual blocks of each stage.
      widths: channels that each stage returns.
      bottleneck: whether a block is three convolutions 1x1, 3x3 and 1x1, of which the first two
        have a quarter of the channels; otherwise it is two 3x3.
      stem: channels of the first convolution.
      norm: "batch" normalizes with the statistics of the batch while training, and updates the
        running averages; "frozen" always uses the running averages.
      output: "mean" over the last map (n = 1), or "all" of its pixels as tokens, row after row.
      remat: whether the backward pass recomputes each block, to save memory.
      mean: subtracted from the pixels, which uint8 images bring to [0, 1] and floats hold so.
      std: what pixels are divided by then.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> encoder, images = ResNet((1, 1), (4, 8), stem=4, output="all"), jnp.zeros((2, 33, 32, 3))
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, variables = jax.eval_shape(call, jax.random.key(0), images)
      >>> tokens.values.shape, sorted(variables)
      ((2, 20, 8), ['batch_stats', 'params'])
    """

    blocks: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    bottleneck: bool = False
    stem: int = 64
    norm: Literal["batch", "frozen"] = "batch"
    output: Literal["mean", "all"] = "mean"
    remat: bool = False
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not self.blocks or min(self.blocks) < 1 or len(self.blocks) != len(self.widths):
            raise ValueError(
                f"ResNet has blocks {self.blocks} for widths {self.widths}; give both one entry of "
                "at least 1 per stage."
            )
        check_choice("ResNet.norm", self.norm, ("batch", "frozen"))
        check_choice("ResNet.output", self.output, ("mean", "all"))
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps images [b h w c], uint8 or float, to tokens [b n widths[-1]]; ignores `length`.

        Raises:
          ValueError: if x is not an image of as many channels as `mean`.
        """
        del length
        check_image(x.shape, 1, len(self.mean), "ResNet")
        use_average = not train or self.norm == "frozen"
        x = normalize_pixels(x, self.mean, self.std)
        x = nn.relu(_ConvNorm(self.stem, 7, 2, name="stem")(x, use_average))
        x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        make_block = nn.remat(_ResNetBlock, static_argnums=(2,)) if self.remat else _ResNetBlock
        for stage, (count, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                block = make_block(width, stride, self.bottleneck, name=f"block_{stage}_{i}")
                x = block(x, use_average)
        if self.output == "mean":
            return as_one_token(x.mean(axis=(1, 2)))
        pixels = x.reshape(x.shape[0], -1, x.shape[-1])
        return Tokens(pixels, jnp.ones(pixels.shape[:2], dtype=bool))


class _ResNetBlock(nn.Module):
    """ReLU of x plus convolutions of it; if the shape changes, x goes through a strided 1x1."""

    width: int
    stride: int
    bottleneck: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], use_average: bool) -> Float[Array, "b i j o"]:
        """Maps [b h w c] to [b ceil(h/stride) ceil(w/stride) width]."""
        # Of each convolution: channels, side of the kernel, stride.
        layers = [(self.width, 3, self.stride), (self.width, 3, 1)]
        if self.bottleneck:
            inner = self.width // 4
            layers = [(inner, 1, 1), (inner, 3, self.stride), (self.width, 1, 1)]
        y = x
        for i, layer in enumerate(layers):
            y = _ConvNorm(*layer, name=f"layer_{i}")(y if i == 0 else nn.relu(y), use_average)
        if x.shape[-1] != self.width or self.stride != 1:
            x = _ConvNorm(self.width, 1, self.stride, name="shortcut")(x, use_average)
        return nn.relu(x + y)


class _ConvNorm(nn.Module):
    """A convolution without bias, padded so that stride 1 keeps the size, then batch norm."""

    features: int
    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], use_average: bool) -> Float[Array, "b i j o"]:
        """Maps [b h w c] to [b ceil(h/stride) ceil(w/stride) features]."""
        x = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            self.stride,
            # "SAME" would pad a strided convolution on one side only.
            padding=self.kernel // 2,
            use_bias=False,
            kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
            promote_dtype=cast_to_kernel,
            name="conv",
        )(x)
        return nn.BatchNorm(use_average, momentum=0.9, name="norm")(x)


def resnet18(
    *,
    norm: Literal["batch", "frozen"] = "batch",
    output: Literal["mean", "all"] = "mean",
    remat: bool = False,
) -> ResNet:
    """Makes the ResNet with 18 layers; the options are those of `ResNet`.

    Example:
      >>> resnet18().widths
      (64, 128, 256, 512)
    """
    return ResNet(norm=norm, output=output, remat=remat)


def resnet50(
    *,
    norm: Literal["batch", "frozen"] = "batch",
    output: Literal["mean", "all"] = "mean",
    remat: bool = False,
) -> ResNet:
    """Makes the ResNet with 50 layers, in bottlenecks; the options are those of `ResNet`.

    Example:
      >>> resnet50().widths
      (256, 512, 1024, 2048)
    """
    widths = (256, 512, 1024, 2048)
    return ResNet((3, 4, 6, 3), widths, True, norm=norm, output=output, remat=remat)


def resnet_names() -> tuple[Rename, ...]:
    """Returns the names in files of Hugging Face's ResNet.

    Example:
      >>> resnet_names()[0].path
      'stem/conv/kernel'
    """
    block, path = "*encoder.stages.{stage}.layers.{layer}", "block_{stage}_{layer}"
    return (
        *_rename_conv_norm("*embedder.embedder", "stem"),
        *_rename_conv_norm(f"{block}.layer.{{part}}", f"{path}/layer_{{part}}"),
        *_rename_conv_norm(f"{block}.shortcut", f"{path}/shortcut"),
        Rename("*.num_batches_tracked", None),
        Rename("classifier.*", None),
    )


def _rename_conv_norm(source: str, path: str) -> tuple[Rename, ...]:
    norm = f"{source}.normalization"
    return (
        Rename(f"{source}.convolution.weight", f"{path}/conv/kernel", "conv"),
        *rename_norm(norm, f"{path}/norm"),
        Rename(f"{norm}.running_mean", f"{path}/norm/mean", collection="batch_stats"),
        Rename(f"{norm}.running_var", f"{path}/norm/var", collection="batch_stats"),
    )
