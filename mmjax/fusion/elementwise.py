"""Elementwise fusions: the sum, the mean or the maximum of projections."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import (
    mean_over_present,
    pool_modalities,
    project_modalities,
    stack_pooled,
)
from mmjax.kernels.max import max_over_axis
from mmjax.types import Tokens


class Sum(nn.Module):
    """Sum of W_m x_m + b_m over the present modalities; zeros if there is none.

    Attributes:
      width: size of the result.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> call = functools.partial(Sum(4).init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 4)
    """

    width: int

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width]."""
        del train
        projected = project_modalities(pool_modalities(tokens), self.width)
        return stack_pooled(projected)[0].sum(axis=0)


class Mean(nn.Module):
    """Mean of W_m x_m + b_m over the present modalities; zeros if there is none.

    Attributes:
      width: size of the result.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> call = functools.partial(Mean(4).init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 4)
    """

    width: int

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width]."""
        del train
        return mean_over_present(
            *stack_pooled(project_modalities(pool_modalities(tokens), self.width))
        )


class Max(nn.Module):
    """Elementwise maximum of W_m x_m + b_m over the present modalities; zeros if there is none.

    Attributes:
      width: size of the result.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> call = functools.partial(Max(4).init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 4)
    """

    width: int

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width]."""
        del train
        projected = project_modalities(pool_modalities(tokens), self.width)
        values, present = stack_pooled(projected)
        lowest = jnp.finfo(values.dtype).min  # finite: -inf would make NaN gradients
        entries = max_over_axis(jnp.where(present[:, :, None], values, lowest), axis=0)
        return jnp.where(present.any(axis=0)[:, None], entries, 0)
