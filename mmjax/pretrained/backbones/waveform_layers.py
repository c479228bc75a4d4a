"""Layers over waveforms and their frames that ignore padding."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.encoders.sequence import mean_over_time
from mmjax.kernels.gelu import gelu
from mmjax.types import Tokens


class TimeNorm(nn.Module):
    """Normalizes each channel over the unmasked steps: a group norm with one channel per group.

    Example:
      >>> x, mask = jnp.array([[[1.0], [3.0], [99.0]]]), jnp.array([[True, True, False]])
      >>> y, _ = TimeNorm().init_with_output(jax.random.key(0), x, mask)
      >>> y[0, :2, 0].round(3).tolist()
      [-1.0, 1.0]
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b t c"], mask: Bool[Array, "b t"]) -> Float[Array, "b t c"]:
        """Brings each channel to mean 0 and variance 1, then scales and shifts it."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x, scale, bias = nn.dtypes.promote_dtype(x, scale, bias)
        normed = _normalize_over_time(x, mask, 1e-5)
        return normed * scale[None, None] + bias[None, None]


class PositionalConv(nn.Module):
    """GELU of a grouped convolution over tokens, whose kernel is a gain times a direction per tap.

    Source: Salimans and Kingma, NeurIPS 2016 (arXiv:1602.07868), on weight norm.

    Attributes:
      kernel: its length, in tokens.
      groups: number of groups of channels.

    Example:
      >>> module, x = PositionalConv(kernel=4, groups=2), jnp.zeros((3, 5, 8))
      >>> jax.eval_shape(module.init_with_output, jax.random.key(0), x)[0].shape
      (3, 5, 8)
    """

    kernel: int
    groups: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Maps [b n d] to [b n d], with zeros before and after the tokens."""
        width = x.shape[-1]
        deviation = 2 / (self.kernel * width) ** 0.5
        shape = (self.kernel, width // self.groups, width)
        direction = self.param("direction", nn.initializers.normal(deviation), shape)
        gain = self.param("gain", lambda _, v: _measure_taps(v), direction)
        bias = self.param("bias", nn.initializers.zeros, (width,))
        kernel = direction * (gain / _measure_taps(direction))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias)
        around = (self.kernel // 2, (self.kernel - 1) // 2)
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (1,),
            [around],
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=self.groups,
        )
        return gelu(y + bias[None, None])


def _measure_taps(kernel: Float[Array, "k c o"]) -> Float[Array, "k 1 1"]:
    """Computes the Euclidean norm of each tap of a kernel."""
    return jnp.sqrt(jnp.square(kernel).sum(axis=(1, 2), keepdims=True))


def standardize_waveforms(samples: Tokens) -> Tokens:
    """Brings the true samples [b time] of each waveform to mean 0 and variance 1, others to 0.

    Example:
      >>> samples = Tokens(jnp.array([[1.0, 3.0, 99.0]]), jnp.array([[True, True, False]]))
      >>> standardize_waveforms(samples).values.round(3).tolist()
      [[-1.0, 1.0, 0.0]]
    """
    values = _normalize_over_time(samples.values[:, :, None], samples.mask, 1e-7)[:, :, 0]
    return Tokens(jnp.where(samples.mask, values, 0), samples.mask)


def _normalize_over_time(
    x: Float[Array, "b t c"], mask: Bool[Array, "b t"], epsilon: float
) -> Float[Array, "b t c"]:
    """Computes (x - mean) / sqrt(variance + epsilon) over the unmasked steps, in float32."""
    wide = x.astype(jnp.float32)
    centered = wide - mean_over_time(wide, mask)[:, None]
    variance = mean_over_time(jnp.square(centered), mask)[:, None]
    return (centered * jax.lax.rsqrt(variance + epsilon)).astype(x.dtype)
