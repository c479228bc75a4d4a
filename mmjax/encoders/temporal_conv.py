"""A temporal convolutional network: each output depends on past inputs only."""

import functools
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from mmjax.encoders.conv1d import Conv1d
from mmjax.encoders.mlp import as_one_token
from mmjax.encoders.sequence import check_sequence_shape, mask_padding, mean_over_time
from mmjax.layers.dropout import Dropout
from mmjax.types import Tokens


class TemporalConvEncoder(nn.Module):
    """Residual blocks of causal convolutions over time; each block doubles the dilation.

    With L blocks an output sees the last 1 + 2 (kernel - 1) (2^L - 1) steps.

    Source: Bai et al. 2018 (arXiv:1803.01271); its weight norms are layer norms here.

    Attributes:
      features: filters of each block.
      kernel: length of the filters, in time steps that are the dilation apart.
      dropout: rate of whole channels in every block, while training.
      output: "last" is the last true step (n = 1), "mean" the mean over time (n = 1), "all" one
        token per step.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> encoder, x = TemporalConvEncoder((4, 8)), jnp.zeros((2, 10, 3))
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), x)
      >>> tokens.values.shape
      (2, 1, 8)
    """

    features: tuple[int, ...] = (32, 32, 32)
    kernel: int = 3
    dropout: float = 0.0
    output: Literal["last", "all", "mean"] = "last"

    def __post_init__(self) -> None:
        if not self.features or self.kernel < 1:
            raise ValueError(
                f"TemporalConvEncoder has features {self.features} and kernel {self.kernel}; "
                "give it at least one filter count and a kernel over 0."
            )
        if self.output not in ("last", "all", "mean"):
            raise ValueError(
                f"TemporalConvEncoder.output is {self.output!r}; use 'last', 'all' or 'mean'."
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps sequences [b time d] of true `length` (None: no padding) to tokens.

        A sequence of length 0 gives zeros.

        Raises:
          ValueError: if x is not [b time d].
        """
        check_sequence_shape(x.shape, "TemporalConvEncoder")
        x, mask = mask_padding(x, length)
        for i, filters in enumerate(self.features):
            # Dilations of 1, 2, 4, ... double the number of steps that an output sees with every
            # block.
            block = _TemporalBlock(filters, self.kernel, 2**i, self.dropout, name=f"block_{i}")
            x = block(x, train=train)
        x = jnp.where(mask[:, :, None], x, 0)
        if self.output == "all":
            return Tokens(x, mask)
        return as_one_token(
            mean_over_time(x, mask) if self.output == "mean" else _take_last_step(x, mask)
        )


class _TemporalBlock(nn.Module):
    """relu(x + f(f(x))), where f is convolution, norm, ReLU and dropout.

    If the width changes, x goes through a Dense layer first.
    """

    features: int
    kernel: int
    dilation: int
    dropout: float

    @nn.compact
    def __call__(self, x: Float[Array, "b t c"], *, train: bool) -> Float[Array, "b t o"]:
        """Maps [b t c] to [b t features]."""
        drop = functools.partial(Dropout(self.dropout, shared=(1,)), train=train)
        before = (self.dilation * (self.kernel - 1), 0)  # zeros before only: causal
        y = x
        for i in range(2):
            conv = Conv1d(self.features, self.kernel, before, self.dilation, name=f"conv_{i}")
            y = drop(nn.relu(nn.LayerNorm(name=f"norm_{i}")(conv(y))))
        same_width = x.shape[-1] == self.features
        return nn.relu(y + (x if same_width else nn.Dense(self.features, name="shortcut")(x)))


def _take_last_step(x: Float[Array, "b t d"], mask: Bool[Array, "b t"]) -> Float[Array, "b d"]:
    """Returns the last unmasked step of each sequence; zeros if there is none."""
    # One-hot over time; an empty sequence has no such step and gives zeros.
    last = jnp.arange(x.shape[1])[None] == mask.sum(axis=1)[:, None] - 1
    return jnp.where(last[:, :, None], x, 0).sum(axis=1)
