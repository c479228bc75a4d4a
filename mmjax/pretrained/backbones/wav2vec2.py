"""wav2vec 2.0 and HuBERT: convolutions over the waveform, then a transformer."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from mmjax.encoders.conv1d import Conv1d
from mmjax.encoders.mlp import as_one_token
from mmjax.encoders.sequence import mask_padding, mean_over_time
from mmjax.kernels.attention import dot_general_2d, zero_masked_tokens
from mmjax.kernels.gelu import gelu
from mmjax.layers.dropout import Dropout
from mmjax.masks import make_length_mask
from mmjax.pretrained.backbones.rename_layers import (
    rename_block,
    rename_conv,
    rename_linear,
    rename_norm,
)
from mmjax.pretrained.backbones.transformer_layers import (
    TransformerBlock,
    check_choice,
    make_layer_norm,
    scan_layers,
)
from mmjax.pretrained.backbones.waveform_layers import (
    PositionalConv,
    TimeNorm,
    standardize_waveforms,
)
from mmjax.pretrained.renaming import Rename
from mmjax.types import Shape, Tokens

_KERNELS = (10, 3, 3, 3, 3, 2, 2)
_STRIDES = (5, 2, 2, 2, 2, 2, 2)


class Wav2Vec2(nn.Module):
    """Strided convolutions of the waveform, convolutional positions, and transformer layers.

    Source: Baevski et al., NeurIPS 2020 (arXiv:2006.11477); Hsu et al., 2021 (arXiv:2106.07447) for
    HuBERT, which has the same network. The defaults are those of both Base models. The Large ones
    that were trained on Libri-Light have width 1024, 24 layers, 16 heads, hidden 4096,
    conv_norm "layer", conv_bias (wav2vec 2.0) and pre_norm.

    Padding has no effect: the statistics of the group norm are those of the true steps, whereas
    other implementations count the zeros behind them.

    Attributes:
      width: of the tokens.
      layers: number of transformer layers.
      heads: attention heads of each.
      hidden: width of an MLP's hidden layer.
      filters: channels of each convolution.
      kernels: length of each convolution's filters, in steps.
      strides: of each convolution; their product (320) is the number of samples per token.
      conv_norm: "group" normalizes each channel of the first convolution over time, "layer" each
        step of every convolution over the channels.
      conv_bias: whether the convolutions have biases.
      projection_norm: whether a layer norm comes before the projection to `width`.
      position_kernel: length of the convolution that encodes positions, in tokens.
      position_groups: number of its groups of channels.
      pre_norm: whether the layers have their norms before attention and MLP.
      standardize: whether each waveform is brought to mean 0 and variance 1, as the published
        models expect.
      dropout: rate on the inputs of the layers and on what attention and MLP add, while training.
      output: "mean" over the tokens (n = 1), or "all" of them.
      remat: whether the backward pass recomputes each layer, to save memory.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> encoder = Wav2Vec2(
      ...     8, 1, 2, 16, filters=(4, 4), kernels=(10, 3), strides=(5, 2), position_kernel=4,
      ...     position_groups=2, output="all"
      ... )
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), jnp.zeros((2, 160)))
      >>> tokens.values.shape
      (2, 15, 8)
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    filters: tuple[int, ...] = (512,) * 7
    kernels: tuple[int, ...] = _KERNELS
    strides: tuple[int, ...] = _STRIDES
    conv_norm: Literal["group", "layer"] = "group"
    conv_bias: bool = False
    projection_norm: bool = True
    position_kernel: int = 128
    position_groups: int = 16
    pre_norm: bool = False
    standardize: bool = True
    dropout: float = 0.0
    output: Literal["mean", "all"] = "mean"
    remat: bool = False

    def __post_init__(self) -> None:
        if not len(self.filters) == len(self.kernels) == len(self.strides) > 0:
            raise ValueError(
                f"Wav2Vec2 has {len(self.filters)} filters, {len(self.kernels)} kernels and "
                f"{len(self.strides)} strides; give all three one entry per convolution."
            )
        check_choice("Wav2Vec2.conv_norm", self.conv_norm, ("group", "layer"))
        check_choice("Wav2Vec2.output", self.output, ("mean", "all"))
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps waveforms [b time] or [b time 1] of true `length` (None: no padding) to tokens.

        A waveform that is shorter than the receptive field of the convolutions (400 samples) gives
        no token, hence zeros.

        Raises:
          ValueError: if x has another shape, or its time axis is shorter than the receptive field.
        """
        self.check_shape(x.shape)
        samples = mask_padding(x.reshape(x.shape[0], -1), length)
        if self.standardize:
            samples = standardize_waveforms(samples)
        values, mask = self.extract_features(samples)
        if self.projection_norm:
            values = make_layer_norm(1e-5, "projection_norm")(values)
        values = nn.Dense(self.width, dot_general=dot_general_2d, name="projection")(values)
        tokens = zero_masked_tokens(self.transform(Tokens(values, mask), train=train))
        return tokens if self.output == "all" else as_one_token(mean_over_time(*tokens))

    def check_shape(self, shape: Shape) -> None:
        """Raises ValueError unless the shape is that of waveforms which give at least one token."""
        if len(shape) not in (2, 3) or shape[2:] not in ((), (1,)):
            raise ValueError(
                f"Wav2Vec2 needs waveforms [b time] or [b time 1] but got shape {shape}; average "
                "the channels, and give it samples, not spectrograms."
            )
        needed = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            needed = (needed - 1) * stride + kernel
        if shape[1] < needed:
            raise ValueError(
                f"Wav2Vec2 needs waveforms of at least {needed} samples for its convolutions but "
                f"got {shape[1]}; pad them, with their true lengths as `length`."
            )

    def extract_features(self, samples: Tokens) -> Tokens:
        """Applies the convolutions to waveforms [b time]; a token counts if all its samples do."""
        x, length = samples.values[:, :, None], samples.mask.sum(axis=1)
        layers = zip(self.filters, self.kernels, self.strides, strict=True)
        for i, (filters, kernel, stride) in enumerate(layers):
            conv = Conv1d(filters, kernel, stride=stride, use_bias=self.conv_bias, name=f"conv_{i}")
            x = conv(x)
            length = jnp.maximum((length - kernel) // stride + 1, 0)
            if self.conv_norm == "layer":
                x = make_layer_norm(1e-5, f"conv_norm_{i}")(x)
            elif i == 0:
                x = TimeNorm(name="conv_norm_0")(x, make_length_mask(length, x.shape[1], jnp))
            x = gelu(x)
        return Tokens(x, make_length_mask(length, x.shape[1], jnp))

    def transform(self, tokens: Tokens, *, train: bool) -> Tokens:
        """Adds positions to tokens [b n d], and applies the transformer layers."""
        x = zero_masked_tokens(tokens).values
        x = x + PositionalConv(self.position_kernel, self.position_groups, name="positions")(x)
        norm = make_layer_norm(1e-5, "norm")
        x = Dropout(self.dropout)(x if self.pre_norm else norm(x), train=train)
        block = TransformerBlock(
            self.heads,
            self.hidden,
            norm="pre" if self.pre_norm else "post",
            epsilon=1e-5,
            dropout=self.dropout,
            name="layers",
        )
        mask = tokens.mask[:, None, None]
        x = scan_layers(block, self.layers, x, mask, remat=self.remat, train=train)
        return Tokens(norm(x) if self.pre_norm else x, tokens.mask)


def wav2vec2_names() -> tuple[Rename, ...]:
    """Returns the names in files of Hugging Face's wav2vec 2.0 and HuBERT.

    Example:
      >>> wav2vec2_names()[0].path
      'conv_{layer}/kernel'
    """
    conv = "*feature_extractor.conv_layers.{layer}"
    position = "*encoder.pos_conv_embed.conv"
    layers = rename_block(
        "*encoder.layers.{layer}.",
        {
            "attention.q_proj": "attention/query",
            "attention.k_proj": "attention/key",
            "attention.v_proj": "attention/value",
            "attention.out_proj": "attention/out",
            "feed_forward.intermediate_dense": "mlp_in",
            "feed_forward.output_dense": "mlp_out",
        },
        {"layer_norm": "norm_attention", "final_layer_norm": "norm_mlp"},
    )
    heads = ("lm_head", "quantizer", "project_hid", "project_q", "projector", "classifier")
    return (
        *rename_conv(f"{conv}.conv", "conv_{layer}"),
        *rename_norm(f"{conv}.layer_norm", "conv_norm_{layer}"),
        *rename_norm("*feature_projection.layer_norm", "projection_norm"),
        *rename_linear("*feature_projection.projection", "projection"),
        # PyTorch's weight norm has had two names for gain and direction.
        Rename(f"{position}.parametrizations.weight.original0", "positions/gain", "conv"),
        Rename(f"{position}.parametrizations.weight.original1", "positions/direction", "conv"),
        Rename(f"{position}.weight_g", "positions/gain", "conv"),
        Rename(f"{position}.weight_v", "positions/direction", "conv"),
        Rename(f"{position}.bias", "positions/bias"),
        *layers,
        *rename_norm("*encoder.layer_norm", "norm"),
        Rename("*masked_spec_embed", None),
        *(Rename(f"{head}.*", None) for head in heads),
    )
