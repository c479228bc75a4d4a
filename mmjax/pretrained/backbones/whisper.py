"""The encoder of Whisper: a transformer over log-mel frames of speech."""

import math
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Num

from mmjax.encoders.conv1d import Conv1d
from mmjax.encoders.mlp import as_one_token
from mmjax.encoders.sequence import check_sequence_shape, mask_padding, mean_over_time
from mmjax.kernels.attention import zero_masked_tokens
from mmjax.kernels.gelu import gelu
from mmjax.layers.dropout import Dropout
from mmjax.masks import make_length_mask
from mmjax.pretrained.backbones.rename_layers import rename_block, rename_conv, rename_norm
from mmjax.pretrained.backbones.transformer_layers import (
    TransformerBlock,
    check_choice,
    make_layer_norm,
    scan_layers,
)
from mmjax.pretrained.renaming import Rename
from mmjax.types import Tokens


class WhisperEncoder(nn.Module):
    """Two convolutions, of which the second halves the frames, positions, and pre-norm layers.

    Source: Radford et al., ICML 2023 (arXiv:2212.04356). The sizes (width, layers, heads) are 384,
    4, 6 of Whisper tiny; 512, 6, 8 of base, the default; 768, 12, 12 of small; 1024, 24, 16 of
    medium; 1280, 32, 20 of large.

    If lengths are given, frames beyond them are masked. Whisper itself was trained on recordings
    that were padded with silence to 30 s (3000 frames), which was not masked; to reproduce its
    values exactly, pad in the same way and give no lengths.

    Attributes:
      width: of the tokens; an MLP's hidden layer has four times as much.
      layers: number of transformer layers.
      heads: attention heads of each.
      positions: maximum number of tokens, two frames each.
      dropout: rate on the inputs of the layers and on what attention and MLP add, while training.
      output: "mean" over the tokens (n = 1), or "all" of them.
      remat: whether the backward pass recomputes each layer, to save memory.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> encoder = WhisperEncoder(width=8, layers=1, heads=2, positions=9, output="all")
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), jnp.zeros((2, 11, 80)))
      >>> tokens.values.shape
      (2, 6, 8)
    """

    width: int = 512
    layers: int = 6
    heads: int = 8
    positions: int = 1500
    dropout: float = 0.0
    output: Literal["mean", "all"] = "mean"
    remat: bool = False

    def __post_init__(self) -> None:
        if self.width < 4 or self.width % 2:
            raise ValueError(
                f"WhisperEncoder.width is {self.width}; it must be even and at least 4, for sines "
                "and cosines of the positions."
            )
        check_choice("WhisperEncoder.output", self.output, ("mean", "all"))
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps log-mel frames [b time mels] of true `length` (None: no padding) to tokens.

        A sequence of length 0 gives zeros.

        Raises:
          ValueError: if x has another shape, or more frames than positions for them.
        """
        check_sequence_shape(x.shape, "WhisperEncoder")
        if x.shape[1] > 2 * self.positions:
            raise ValueError(
                f"WhisperEncoder got {x.shape[1]} frames but has positions for "
                f"{2 * self.positions}; cut the recordings, or give it more positions."
            )
        frames = mask_padding(x, length)
        y = gelu(Conv1d(self.width, 3, (1, 1), name="conv_0")(frames.values))
        # The second convolution must see zeros behind the end, as for a sequence that ends there.
        y = zero_masked_tokens(Tokens(y, frames.mask)).values
        conv = Conv1d(self.width, 3, (1, 1), stride=2, name="conv_1")
        y = gelu(conv(y))
        mask = make_length_mask((frames.mask.sum(axis=1) + 1) // 2, y.shape[1], jnp)
        table = self.param("positions", _make_positions, (self.positions, self.width))
        y = y + table[: y.shape[1]].astype(y.dtype)[None]
        y = Dropout(self.dropout)(y, train=train)
        block = TransformerBlock(
            self.heads,
            4 * self.width,
            epsilon=1e-5,
            key_bias=False,
            dropout=self.dropout,
            name="layers",
        )
        y = scan_layers(block, self.layers, y, mask[:, None, None], remat=self.remat, train=train)
        tokens = zero_masked_tokens(Tokens(make_layer_norm(1e-5, "norm")(y), mask))
        return tokens if self.output == "all" else as_one_token(mean_over_time(*tokens))


def _make_positions(
    key: Key[Array, ""], shape: tuple[int, int], dtype: type = jnp.float32
) -> Float[Array, "n d"]:
    """Computes sines and cosines with wavelengths from 2 pi to 20000 pi, both ends included."""
    del key
    count, width = shape
    rates = np.exp(-math.log(10000.0) / (width // 2 - 1) * np.arange(width // 2))
    angles = np.arange(count)[:, None] * rates[None]
    return jnp.asarray(np.concatenate([np.sin(angles), np.cos(angles)], axis=1), dtype)


def whisper_names() -> tuple[Rename, ...]:
    """Returns the names in files of Hugging Face's Whisper, whose decoder is not used.

    Example:
      >>> whisper_names()[1].path
      'conv_0/kernel'
    """
    return (
        Rename("*decoder.*", None),
        *rename_conv("*encoder.conv1", "conv_0"),
        *rename_conv("*encoder.conv2", "conv_1"),
        Rename("*encoder.embed_positions.weight", "positions"),
        *rename_block(
            "*encoder.layers.{layer}.",
            {
                "self_attn.q_proj": "attention/query",
                "self_attn.k_proj": "attention/key",
                "self_attn.v_proj": "attention/value",
                "self_attn.out_proj": "attention/out",
                "fc1": "mlp_in",
                "fc2": "mlp_out",
            },
            {"self_attn_layer_norm": "norm_attention", "final_layer_norm": "norm_mlp"},
        ),
        *rename_norm("*encoder.layer_norm", "norm"),
        *(Rename(f"{head}*", None) for head in ("proj_out.", "projector.", "classifier.")),
        Rename("layer_weights", None),
    )
