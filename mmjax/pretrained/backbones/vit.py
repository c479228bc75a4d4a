"""Vision transformers: ViT and DINOv2."""

from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from mmjax.encoders.mlp import as_one_token
from mmjax.layers.dropout import Dropout
from mmjax.pretrained.backbones.patches import (
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageEmbedding,
    check_image,
    normalize_pixels,
)
from mmjax.pretrained.backbones.rename_layers import rename_block, rename_linear, rename_norm
from mmjax.pretrained.backbones.transformer_layers import (
    Activation,
    TransformerBlock,
    check_choice,
    make_layer_norm,
    scan_layers,
)
from mmjax.pretrained.renaming import Rename
from mmjax.types import Tokens

ViTOutput = Literal["all", "class", "mean", "pooled"]


class ViT(nn.Module):
    """Embeds patches and a class token, then applies pre-norm transformer layers.

    The default is google/vit-base-patch16-224-in21k. Images of other sizes than `image` get
    interpolated positions; pixels at the end that fill no patch are left out.

    Source: Dosovitskiy et al., ICLR 2021 (arXiv:2010.11929); DINOv2: Oquab et al., TMLR 2024
    (arXiv:2304.07193); registers: Darcet et al., ICLR 2024 (arXiv:2309.16588).

    Attributes:
      width: of the tokens.
      layers: number of layers.
      heads: attention heads of each.
      hidden: width of an MLP's hidden layer.
      patch: side of a patch, in pixels.
      image: side of the images that the table of positions was made for, in pixels.
      registers: number of learned tokens beside the class token.
      layer_scale: whether what attention and MLP add is scaled per channel.
      gated: whether the MLPs are SwiGLU, in which case `hidden` is the width of each half.
      activation: that of the MLPs.
      epsilon: of the layer norms.
      antialias: whether shrinking the table of positions smooths it, as for DINOv2's models with
        registers.
      mean: subtracted from the pixels, which uint8 images bring to [0, 1] and floats hold so.
      std: what pixels are divided by then.
      dropout: rate on the embedded tokens and on what attention and MLP add, while training.
      output: "all" tokens: class, registers, patches; "class" token; "mean" over the patches;
        "pooled": a layer with tanh on the class token.
      remat: whether the backward pass recomputes each layer, to save memory.

    Example:
      >>> import functools, jax
      >>> encoder = ViT(width=8, layers=2, heads=2, hidden=16, patch=4, image=8, output="all")
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), jnp.zeros((2, 8, 13, 3), jnp.uint8))
      >>> tokens.values.shape  # the class token and 2 * 3 patches
      (2, 7, 8)
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    patch: int = 16
    image: int = 224
    registers: int = 0
    layer_scale: bool = False
    gated: bool = False
    activation: Activation = "gelu"
    epsilon: float = 1e-12
    antialias: bool = False
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF
    dropout: float = 0.0
    output: ViTOutput = "class"
    remat: bool = False

    def __post_init__(self) -> None:
        check_choice("ViT.output", self.output, get_args(ViTOutput))
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps images [b h w c], uint8 or float, to tokens [b n d]; ignores `length`.

        Raises:
          ValueError: if x is not an image of as many channels as `mean`, or smaller than a patch.
        """
        del length
        check_image(x.shape, self.patch, len(self.mean), "ViT")
        embed = ImageEmbedding(
            self.width,
            self.patch,
            self.image,
            registers=self.registers,
            antialias=self.antialias,
            name="embed",
        )
        values = embed(normalize_pixels(x, self.mean, self.std))
        values = Dropout(self.dropout)(values, train=train)
        block = TransformerBlock(
            self.heads,
            self.hidden,
            self.activation,
            self.epsilon,
            self.dropout,
            gated=self.gated,
            layer_scale=self.layer_scale,
            name="layers",
        )
        values = scan_layers(block, self.layers, values, remat=self.remat, train=train)
        values = make_layer_norm(self.epsilon, "norm")(values)
        if self.output == "all":
            return Tokens(values, jnp.ones(values.shape[:2], bool))
        if self.output == "mean":
            return as_one_token(values[:, 1 + self.registers :].mean(axis=1))
        first = values[:, 0]
        if self.output == "pooled":
            first = jnp.tanh(nn.Dense(self.width, name="pooler")(first))
        return as_one_token(first)


def dinov2(
    size: Literal["small", "base", "large", "giant"] = "base",
    registers: int = 0,
    dropout: float = 0.0,
    output: ViTOutput = "class",
    remat: bool = False,
) -> ViT:
    """Returns the ViT of DINOv2, with patches of 14 pixels.

    Args:
      size: the name that it was published under.
      registers: 4 for the models with registers, else 0.
      dropout: as in `ViT`.
      output: as in `ViT`; there is no "pooled".
      remat: as in `ViT`.

    Example:
      >>> dinov2("small").width, dinov2("giant").gated
      (384, True)
    """
    sizes = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
    width, layers, heads = sizes.get(size, (1536, 40, 24))
    check_choice("size", size, (*sizes, "giant"))
    giant = size == "giant"
    return ViT(
        width=width,
        layers=layers,
        heads=heads,
        hidden=4096 if giant else 4 * width,
        patch=14,
        image=518,
        registers=registers,
        layer_scale=True,
        gated=giant,
        epsilon=1e-6,
        antialias=registers > 0,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        dropout=dropout,
        output=output,
        remat=remat,
    )


def vit_names(output: ViTOutput = "class") -> tuple[Rename, ...]:
    """Returns the names in files of Hugging Face's ViT and DINOv2, with and without registers.

    Args:
      output: that of the `ViT`; only "pooled" uses the arrays of the pooler.

    Example:
      >>> vit_names()[0].path
      'embed/class_token'
    """
    layers = rename_block(
        "*encoder.layer.{layer}.",
        {
            "attention.attention.query": "attention/query",
            "attention.attention.key": "attention/key",
            "attention.attention.value": "attention/value",
            "attention.output.dense": "attention/out",
            "intermediate.dense": "mlp_in",
            "output.dense": "mlp_out",
            "mlp.fc1": "mlp_in",
            "mlp.fc2": "mlp_out",
            "mlp.weights_in": "mlp_in",
            "mlp.weights_out": "mlp_out",
        },
        {
            "layernorm_before": "norm_attention",
            "layernorm_after": "norm_mlp",
            "norm1": "norm_attention",
            "norm2": "norm_mlp",
        },
    )
    return (
        Rename("*embeddings.cls_token", "embed/class_token", "reshape"),
        Rename("*embeddings.register_tokens", "embed/registers", "reshape"),
        Rename("*embeddings.position_embeddings", "embed/positions", "reshape"),
        Rename("*embeddings.patch_embeddings.projection.weight", "embed/kernel", "conv"),
        Rename("*embeddings.patch_embeddings.projection.bias", "embed/bias"),
        *layers,
        Rename("*encoder.layer.{layer}.layer_scale1.lambda1", "layers/scale_attention"),
        Rename("*encoder.layer.{layer}.layer_scale2.lambda1", "layers/scale_mlp"),
        *rename_norm("*layernorm", "norm"),
        *(rename_linear("*pooler.dense", "pooler") if output == "pooled" else ()),
        *(Rename(p, None) for p in ("*pooler.*", "*embeddings.mask_token", "classifier.*")),
    )
