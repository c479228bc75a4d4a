"""A convolutional encoder of sequences."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from mmjax.encoders.mlp import as_one_token
from mmjax.encoders.sequence import check_sequence_shape, mask_padding, mean_over_time
from mmjax.kernels.conv1d import conv1d
from mmjax.kernels.max import max_pool_time
from mmjax.layers.dropout import Dropout
from mmjax.types import Tokens


class Conv1dEncoder(nn.Module):
    """Convolution over time, layer norm, ReLU and max pooling per feature count.

    Padding counts as the zeros around a convolution, so it has no effect.

    Attributes:
      features: filters of each layer.
      kernel: length of the filters, in time steps.
      pool: number of steps that become one after each layer; an incomplete last group counts too.
        1 disables pooling.
      dropout: rate after every layer, while training.
      output: "mean" over the remaining steps (n = 1), or "all" of them.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> encoder, x = Conv1dEncoder((4, 8), output="all"), jnp.zeros((2, 10, 3))
      >>> length = jnp.array([10, 4])
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), x, length)
      >>> tokens.values.shape, tokens.mask.shape
      ((2, 3, 8), (2, 3))
    """

    features: tuple[int, ...] = (32, 64)
    kernel: int = 5
    pool: int = 2
    dropout: float = 0.0
    output: Literal["mean", "all"] = "mean"

    def __post_init__(self) -> None:
        if not self.features or min(self.kernel, self.pool) < 1:
            raise ValueError(
                f"Conv1dEncoder has features {self.features}, kernel {self.kernel} and pool "
                f"{self.pool}; give it at least one filter count, a kernel and a pool over 0."
            )
        if self.output not in ("mean", "all"):
            raise ValueError(f"Conv1dEncoder.output is {self.output!r}; use 'mean' or 'all'.")
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
        check_sequence_shape(x.shape, "Conv1dEncoder")
        x, mask = mask_padding(x, length)
        # Pads once, so that every pooling divides the time.
        extra = -x.shape[1] % self.pool ** len(self.features)
        x, mask = jnp.pad(x, [(0, 0), (0, extra), (0, 0)]), jnp.pad(mask, [(0, 0), (0, extra)])
        around = ((self.kernel - 1) // 2, self.kernel // 2)
        for i, filters in enumerate(self.features):
            x = Conv1d(filters, self.kernel, around, name=f"conv_{i}")(x)
            x = nn.relu(nn.LayerNorm(name=f"norm_{i}")(x))
            # After ReLU no entry is negative, so a masked zero is never above a real entry.
            x = max_pool_time(jnp.where(mask[:, :, None], x, 0), self.pool)
            x = Dropout(self.dropout)(x, train=train)
            # A pooled step is real if its first step is: padding comes last.
            mask = mask[:, :: self.pool]
        return Tokens(x, mask) if self.output == "all" else as_one_token(mean_over_time(x, mask))


class Conv1d(nn.Module):
    """Applies `conv1d` with parameters of its own: kernel (LeCun normal) and bias (zeros)."""

    features: int
    kernel: int
    around: tuple[int, int] = (0, 0)
    dilation: int = 1
    stride: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b s o"]:
        """Maps [b t c] to [b s features]."""
        shape = (self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias)
        y = conv1d(x, kernel, self.around, self.dilation, self.stride)
        return y if bias is None else y + bias[None, None]
