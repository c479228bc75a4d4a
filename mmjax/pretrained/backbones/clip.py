"""The image tower and the text tower of CLIP."""

from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from mmjax.data.dataset import Modality
from mmjax.encoders.mlp import as_one_token
from mmjax.kernels.attention import zero_masked_tokens
from mmjax.layers.dropout import Dropout
from mmjax.pretrained.backbones.patches import ImageEmbedding, check_image, normalize_pixels
from mmjax.pretrained.backbones.rename_layers import rename_clip_block, rename_norm
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

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CLIPOutput = Literal["all", "pooled", "projected"]


class CLIPVision(nn.Module):
    """Embeds patches and a class token, normalizes them, and applies pre-norm transformer layers.

    The default is openai/clip-vit-base-patch32. Images of other sizes than `image` get interpolated
    positions; pixels at the end that fill no patch are left out.

    Source: Radford et al., ICML 2021 (arXiv:2103.00020).

    Attributes:
      width: of the tokens.
      layers: number of layers.
      heads: attention heads of each.
      hidden: width of an MLP's hidden layer.
      patch: side of a patch, in pixels.
      image: side of the images that the table of positions was made for, in pixels.
      projection: width of the space that both towers share.
      activation: that of the MLPs; models by LAION have "gelu".
      epsilon: of the layer norms.
      mean: subtracted from the pixels, which uint8 images bring to [0, 1] and floats hold so.
      std: what pixels are divided by then.
      dropout: rate on the embedded tokens and on what attention and MLP add, while training.
      output: "all" tokens of the last layer, class token first; "pooled": the norm of the class
        token; "projected": that in the space of both towers.
      remat: whether the backward pass recomputes each layer, to save memory.

    Example:
      >>> import functools, jax
      >>> encoder = CLIPVision(width=8, layers=2, heads=2, hidden=16, image=64, projection=4)
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), jnp.zeros((2, 64, 64, 3), jnp.uint8))
      >>> tokens.values.shape
      (2, 1, 4)
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    patch: int = 32
    image: int = 224
    projection: int = 512
    activation: Activation = "quick_gelu"
    epsilon: float = 1e-5
    mean: tuple[float, ...] = _MEAN
    std: tuple[float, ...] = _STD
    dropout: float = 0.0
    output: CLIPOutput = "projected"
    remat: bool = False

    def __post_init__(self) -> None:
        check_choice("CLIPVision.output", self.output, get_args(CLIPOutput))
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
        check_image(x.shape, self.patch, len(self.mean), "CLIPVision")
        embed = ImageEmbedding(self.width, self.patch, self.image, use_bias=False, name="embed")
        values = embed(normalize_pixels(x, self.mean, self.std))
        values = make_layer_norm(self.epsilon, "norm_input")(values)
        values = Dropout(self.dropout)(values, train=train)
        block = TransformerBlock(
            self.heads, self.hidden, self.activation, self.epsilon, self.dropout, name="layers"
        )
        values = scan_layers(block, self.layers, values, remat=self.remat, train=train)
        if self.output == "all":
            return Tokens(values, jnp.ones(values.shape[:2], bool))
        pooled = make_layer_norm(self.epsilon, "norm")(values[:, 0])
        if self.output == "projected":
            pooled = nn.Dense(self.projection, use_bias=False, name="projection")(pooled)
        return as_one_token(pooled)


class CLIPText(nn.Module):
    """Embeds tokens and positions, and applies pre-norm transformer layers with causal attention.

    The default is openai/clip-vit-base-patch32.

    Source: Radford et al., ICML 2021 (arXiv:2103.00020).

    Attributes:
      vocabulary: rows of the embedding table.
      width: of the tokens.
      layers: number of layers.
      heads: attention heads of each.
      hidden: width of an MLP's hidden layer.
      positions: rows of the table of positions.
      projection: width of the space that both towers share.
      activation: that of the MLPs; models by LAION have "gelu".
      epsilon: of the layer norms.
      dropout: rate on the embedded tokens and on what attention and MLP add, while training.
      output: "all" tokens; "pooled": the last token of each text, which is the end-of-text token
        that CLIP's tokenizer puts there; "projected": that in the space of both towers.
      remat: whether the backward pass recomputes each layer, to save memory.

    Example:
      >>> import functools, jax
      >>> encoder = CLIPText(vocabulary=30, width=8, layers=2, heads=2, hidden=16, projection=4)
      >>> text, length = jnp.array([[7, 2, 9], [5, 0, 0]]), jnp.array([3, 1])
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), text, length)
      >>> tokens.values.shape
      (2, 1, 4)
    """

    vocabulary: int = 49408
    width: int = 512
    layers: int = 12
    heads: int = 8
    hidden: int = 2048
    positions: int = 77
    projection: int = 512
    activation: Activation = "quick_gelu"
    epsilon: float = 1e-5
    dropout: float = 0.0
    output: CLIPOutput = "projected"
    remat: bool = False

    def __post_init__(self) -> None:
        check_choice("CLIPText.output", self.output, get_args(CLIPOutput))
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
        ids, mask = mask_token_ids(x, length, self.positions, "CLIPText")
        time = ids.shape[1]
        words = nn.Embed(self.vocabulary, self.width, name="words")(ids)
        positions = nn.Embed(self.positions, self.width, name="positions")(jnp.arange(time))
        values = Dropout(self.dropout)(words + positions[None], train=train)
        block = TransformerBlock(
            self.heads, self.hidden, self.activation, self.epsilon, self.dropout, name="layers"
        )
        # No token attends to later ones, so true tokens never see padding.
        causal = jnp.tril(jnp.ones((1, 1, time, time), bool))
        values = scan_layers(block, self.layers, values, causal, remat=self.remat, train=train)
        values = make_layer_norm(self.epsilon, "norm")(values)
        if self.output == "all":
            return zero_masked_tokens(Tokens(values, mask))
        last = jnp.maximum(mask.sum(axis=1) - 1, 0)
        pooled = jnp.take_along_axis(values, last[:, None, None], axis=1)[:, 0]
        if self.output == "projected":
            pooled = nn.Dense(self.projection, use_bias=False, name="projection")(pooled)
        return zero_empty_texts(pooled, length)


def clip_vision_names(output: CLIPOutput = "projected") -> tuple[Rename, ...]:
    """Returns the names of the image tower in files of Hugging Face's CLIP models.

    Args:
      output: that of the `CLIPVision`, which decides what is used.

    Example:
      >>> clip_vision_names()[-1]
      Rename(pattern='visual_projection.weight', path='projection/kernel', transform='linear', \
collection=None)
    """
    return (
        *(Rename(p, None) for p in ("text_*", "logit_scale", "*position_ids")),
        Rename("*embeddings.class_embedding", "embed/class_token", "reshape"),
        Rename("*embeddings.patch_embedding.weight", "embed/kernel", "conv"),
        Rename("*embeddings.position_embedding.weight", "embed/positions"),
        *rename_norm("*pre_layrnorm", "norm_input"),  # the files are misspelled
        *rename_clip_block(),
        *(() if output == "all" else rename_norm("*post_layernorm", "norm")),
        Rename("*post_layernorm.*", None),
        Rename("visual_projection.weight", "projection/kernel", "linear")
        if output == "projected"
        else Rename("visual_projection.weight", None),
    )


def clip_text_names(output: CLIPOutput = "projected") -> tuple[Rename, ...]:
    """Returns the names of the text tower in files of Hugging Face's CLIP models.

    Args:
      output: that of the `CLIPText`, which decides what is used.

    Example:
      >>> clip_text_names("pooled")[-1].path is None
      True
    """
    return (
        *(Rename(p, None) for p in ("vision_model.*", "visual_*", "logit_scale", "*position_ids")),
        Rename("*embeddings.token_embedding.weight", "words/embedding"),
        Rename("*embeddings.position_embedding.weight", "positions/embedding"),
        *rename_clip_block(),
        *rename_norm("*final_layer_norm", "norm"),
        Rename("text_projection.weight", "projection/kernel", "linear")
        if output == "projected"
        else Rename("text_projection.weight", None),
    )
