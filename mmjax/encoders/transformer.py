"""A transformer over the steps of a sequence, or over the patches of an image or a spectrogram."""

import functools
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from mmjax.encoders.mlp import as_one_token
from mmjax.encoders.sequence import check_sequence_shape, mask_padding, mean_over_time
from mmjax.kernels.attention import (
    TransformerStack,
    check_heads_divide_width,
    dot_general_2d,
    sinusoidal_positions,
    zero_masked_tokens,
)
from mmjax.layers.dropout import Dropout
from mmjax.types import Tokens


class TransformerEncoder(nn.Module):
    """Projects tokens to one width, adds a position to each, and applies pre-norm layers.

    Source: Vaswani et al., NeurIPS 2017 (arXiv:1706.03762), with the norms of Xiong et al., ICML
    2020 (arXiv:2002.04745); on patches Dosovitskiy et al., ICLR 2021 (arXiv:2010.11929).

    Attributes:
      width: of the tokens.
      layers: number of layers.
      heads: attention heads of each.
      expansion: width of an MLP's hidden layer, in multiples of the tokens' width.
      dropout: rate on the input tokens and on what attention and MLP add, while training.
      patch: rows and columns of a patch; x is [b h w c] then, and zeros fill the last patches. For
        a spectrogram the rows are time. None: x is [b time d].
      learned_positions: number of positions with a learned vector; None is sines and cosines.
      output: "mean" over the tokens (n = 1), "class" the output at a learned token put before them
        (n = 1), "all" the tokens themselves.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> encoder = TransformerEncoder(width=8, layers=1, heads=2, patch=(4, 4), output="all")
      >>> images = jnp.zeros((2, 8, 12, 1))
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), images)
      >>> tokens.values.shape
      (2, 6, 8)
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    expansion: int = 4
    dropout: float = 0.0
    patch: tuple[int, int] | None = None
    learned_positions: int | None = None
    output: Literal["mean", "class", "all"] = "mean"

    def __post_init__(self) -> None:
        check_heads_divide_width(self.width, self.heads)
        if self.output not in ("mean", "class", "all"):
            raise ValueError(
                f"TransformerEncoder.output is {self.output!r}; use 'mean', 'class' or 'all'."
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps sequences [b time d] or images [b h w c] to tokens; `length` counts the first axis.

        A sequence of length 0 gives zeros.

        Raises:
          ValueError: if x has another shape, or more tokens than learned positions.
        """
        tokens = self.make_tokens(x, length)
        values = nn.Dense(self.width, dot_general=dot_general_2d, name="embed")(tokens.values)
        values = values + self.get_positions(values.shape[1]).astype(values.dtype)[None]
        tokens = Tokens(values, tokens.mask)
        if self.output == "class":
            tokens = self.prepend_class_token(tokens)
        drop = functools.partial(Dropout(self.dropout), train=train)
        stack = TransformerStack(
            self.layers, self.heads, self.expansion, self.dropout, name="stack"
        )
        # Masked tokens are queries too and attend to real ones; their outputs do not count.
        tokens = zero_masked_tokens(stack(Tokens(drop(tokens.values), tokens.mask), train=train))
        if self.output == "all":
            return tokens
        if self.output == "class":
            return as_one_token(tokens.values[:, 0])
        return as_one_token(mean_over_time(*tokens))

    def make_tokens(self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None) -> Tokens:
        """Returns the tokens before their embedding, with zeros for padding."""
        if self.patch is None:
            check_sequence_shape(x.shape, "TransformerEncoder")
        elif x.ndim != 4:
            raise ValueError(
                f"TransformerEncoder with patches needs [b h w c] but got shape {x.shape}; "
                "give gray images and spectrograms a last axis of 1."
            )
        steps = mask_padding(x, length)
        return steps if self.patch is None else _cut_into_patches(*steps, self.patch)

    def get_positions(self, count: int) -> Float[Array, "n d"]:
        """Returns one vector per position."""
        if self.learned_positions is None:
            return sinusoidal_positions(count, self.width)
        if count > self.learned_positions:
            raise ValueError(
                f"TransformerEncoder got {count} tokens but has {self.learned_positions} learned "
                f"positions; set learned_positions to {count}."
            )
        shape = (self.learned_positions, self.width)
        return self.param("positions", nn.initializers.normal(0.02), shape)[:count]

    def prepend_class_token(self, tokens: Tokens) -> Tokens:
        """Puts a learned token before the others; it is masked if all others are."""
        start = self.param("class", nn.initializers.normal(0.02), (self.width,))
        b = tokens.values.shape[0]
        first = jnp.broadcast_to(start.astype(tokens.values.dtype)[None, None], (b, 1, self.width))
        not_empty = tokens.mask.any(axis=1, keepdims=True)
        return Tokens(
            jnp.concatenate([first, tokens.values], axis=1),
            jnp.concatenate([not_empty, tokens.mask], axis=1),
        )


def _cut_into_patches(
    x: Float[Array, "b h w c"], mask: Bool[Array, "b h"], patch: tuple[int, int]
) -> Tokens:
    """Cuts images into patches, row after row; a patch is masked if its first row is."""
    rows, columns = patch
    b, h, w, c = x.shape
    x = jnp.pad(x, [(0, 0), (0, -h % rows), (0, -w % columns), (0, 0)])
    down, across = x.shape[1] // rows, x.shape[2] // columns
    x = x.reshape(b, down, rows, across, columns, c).swapaxes(2, 3)
    values = x.reshape(b, down * across, rows * columns * c)
    return Tokens(values, jnp.repeat(mask[:, ::rows], across, axis=1))
