"""The image tower and the text tower of SigLIP."""

from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from mmjax.data.dataset import Modality
from mmjax.encoders.mlp import as_one_token
from mmjax.kernels.attention import zero_masked_tokens
from mmjax.layers.dropout import Dropout
from mmjax.pretrained.backbones.attention_pool import AttentionPool
from mmjax.pretrained.backbones.patches import HALF, ImageEmbedding, check_image, normalize_pixels
from mmjax.pretrained.backbones.rename_layers import rename_clip_block, rename_linear, rename_norm
from mmjax.pretrained.backbones.token_ids import check_vocabulary, mask_token_ids, zero_empty_texts
from mmjax.pretrained.backbones.transformer_layers import (
    Activation,
    TransformerBlock,
    check_choice,
    make_layer_norm,
    scan_layers,
)
from mmjax.pretrained.renaming import Rename
from mmjax.types import Tokens

SigLIPOutput = Literal["all", "pooled"]


class SigLIPVision(nn.Module):
    """Embeds patches and applies pre-norm transformer layers; a learned query pools the tokens.

    The default is google/siglip-base-patch16-224. Images of other sizes than `image` get
    interpolated positions; pixels at the end that fill no patch are left out.

    Source: Zhai et al., ICCV 2023 (arXiv:2303.15343).

    Attributes:
      width: of the tokens.
      layers: number of layers.
      heads: attention heads of each.
      hidden: width of an MLP's hidden layer.
      patch: side of a patch, in pixels.
      image: side of the images that the table of positions was made for, in pixels.
      activation: that of the MLPs.
      epsilon: of the layer norms.
      mean: subtracted from the pixels, which uint8 images bring to [0, 1] and floats hold so.
      std: what pixels are divided by then.
      dropout: rate on the embedded tokens and on what attention and MLP add, while training.
      output: "all" tokens; "pooled": what the learned query attends to, which is in the space of
        both towers.
      remat: whether the backward pass recomputes each layer, to save memory.

    Example:
      >>> import functools, jax
      >>> encoder = SigLIPVision(width=8, layers=2, heads=2, hidden=16, image=32)
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), jnp.zeros((2, 32, 32, 3), jnp.uint8))
      >>> tokens.values.shape
      (2, 1, 8)
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    patch: int = 16
    image: int = 224
    activation: Activation = "gelu_tanh"
    epsilon: float = 1e-6
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF
    dropout: float = 0.0
    output: SigLIPOutput = "pooled"
    remat: bool = False

    def __post_init__(self) -> None:
        check_choice("SigLIPVision.output", self.output, get_args(SigLIPOutput))
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
        check_image(x.shape, self.patch, len(self.mean), "SigLIPVision")
        embed = ImageEmbedding(self.width, self.patch, self.image, class_token=False, name="embed")
        values = embed(normalize_pixels(x, self.mean, self.std))
        values = Dropout(self.dropout)(values, train=train)
        block = TransformerBlock(
            self.heads, self.hidden, self.activation, self.epsilon, self.dropout, name="layers"
        )
        values = scan_layers(block, self.layers, values, remat=self.remat, train=train)
        values = make_layer_norm(self.epsilon, "norm")(values)
        if self.output == "all":
            return Tokens(values, jnp.ones(values.shape[:2], bool))
        pool = AttentionPool(self.heads, self.hidden, self.activation, self.epsilon, name="pool")
        return as_one_token(pool(values))


class SigLIPText(nn.Module):
    """Embeds tokens and positions, and applies pre-norm transformer layers.

    The default is google/siglip-base-patch16-224. The model was trained on texts that are filled up
    to `positions` with a padding token which takes part in the attention. The encoder fills texts
    in this way, whatever they hold behind their length; its cost is that of the longest text.

    Source: Zhai et al., ICCV 2023 (arXiv:2303.15343).

    Attributes:
      vocabulary: rows of the embedding table.
      width: of the tokens.
      layers: number of layers.
      heads: attention heads of each.
      hidden: width of an MLP's hidden layer.
      positions: rows of the table of positions.
      padding: token that fills texts.
      projection: width of the space that both towers share.
      activation: that of the MLPs.
      epsilon: of the layer norms.
      dropout: rate on the embedded tokens and on what attention and MLP add, while training.
      output: "all" tokens of the text; "pooled": a layer on the last position, which is in the
        space of both towers.
      remat: whether the backward pass recomputes each layer, to save memory.

    Example:
      >>> import functools, jax
      >>> encoder = SigLIPText(vocabulary=30, width=8, layers=2, heads=2, hidden=16, projection=4)
      >>> text, length = jnp.array([[7, 2, 9], [5, 0, 0]]), jnp.array([3, 1])
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), text, length)
      >>> tokens.values.shape
      (2, 1, 4)
    """

    vocabulary: int = 32000
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    positions: int = 64
    padding: int = 1
    projection: int = 768
    activation: Activation = "gelu_tanh"
    epsilon: float = 1e-6
    dropout: float = 0.0
    output: SigLIPOutput = "pooled"
    remat: bool = False

    def __post_init__(self) -> None:
        check_choice("SigLIPText.output", self.output, get_args(SigLIPOutput))
        super().__post_init__()

    @nn.nowrap
    def check(self, modality: Modality, name: str) -> None:
        """Raises ValueError unless the modality's tokens have vectors and positions."""
        check_vocabulary(modality, name, self.vocabulary, self.positions)

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps token ids [b time] to tokens; a text of length 0 gives zeros.

        Raises:
          ValueError: if x is not integers [b time], or longer than the table of positions.
        """
        ids, mask = mask_token_ids(x, length, self.positions, "SigLIPText")
        time = ids.shape[1]
        ids = jnp.pad(
            jnp.where(mask, ids, self.padding),
            ((0, 0), (0, self.positions - time)),
            constant_values=self.padding,
        )
        words = nn.Embed(self.vocabulary, self.width, name="words")(ids)
        positions = nn.Embed(self.positions, self.width, name="positions")
        values = words + positions(jnp.arange(self.positions))[None]
        values = Dropout(self.dropout)(values, train=train)
        block = TransformerBlock(
            self.heads, self.hidden, self.activation, self.epsilon, self.dropout, name="layers"
        )
        values = scan_layers(block, self.layers, values, remat=self.remat, train=train)
        values = make_layer_norm(self.epsilon, "norm")(values)
        if self.output == "all":
            return zero_masked_tokens(Tokens(values[:, :time], mask))
        pooled = nn.Dense(self.projection, name="projection")(values[:, -1])
        return zero_empty_texts(pooled, length)


def siglip_vision_names(output: SigLIPOutput = "pooled") -> tuple[Rename, ...]:
    """Returns the names of the image tower in files of Hugging Face's SigLIP models.

    Args:
      output: that of the `SigLIPVision`, which decides what is used.

    Example:
      >>> siglip_vision_names("all")[-1].path is None
      True
    """
    pool = (
        Rename("*head.probe", "pool/query", "reshape"),
        Rename("*head.attention.in_proj_weight", "pool/project/kernel", "linear"),
        Rename("*head.attention.in_proj_bias", "pool/project/bias"),
        *rename_linear("*head.attention.out_proj", "pool/out"),
        *rename_norm("*head.layernorm", "pool/norm"),
        *rename_linear("*head.mlp.fc1", "pool/mlp_in"),
        *rename_linear("*head.mlp.fc2", "pool/mlp_out"),
    )
    return (
        *(Rename(p, None) for p in ("text_model.*", "logit_*", "*position_ids")),
        Rename("*embeddings.patch_embedding.weight", "embed/kernel", "conv"),
        Rename("*embeddings.patch_embedding.bias", "embed/bias"),
        Rename("*embeddings.position_embedding.weight", "embed/positions"),
        *rename_clip_block(),
        *rename_norm("*post_layernorm", "norm"),
        *(pool if output == "pooled" else (Rename("*head.*", None),)),
    )


def siglip_text_names(output: SigLIPOutput = "pooled") -> tuple[Rename, ...]:
    """Returns the names of the text tower in files of Hugging Face's SigLIP models.

    Args:
      output: that of the `SigLIPText`, which decides what is used.

    Example:
      >>> siglip_text_names()[-1].path
      'projection/bias'
    """
    head = (
        rename_linear("*head", "projection") if output == "pooled" else (Rename("*head.*", None),)
    )
    return (
        *(Rename(p, None) for p in ("vision_model.*", "logit_*", "*position_ids")),
        Rename("*embeddings.token_embedding.weight", "words/embedding"),
        Rename("*embeddings.position_embedding.weight", "positions/embedding"),
        *rename_clip_block(),
        *rename_norm("*final_layer_norm", "norm"),
        *head,
    )
