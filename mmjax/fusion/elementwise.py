"""Fusion entry by entry: the sum, the mean or the maximum of projections."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import mean_of_present, pool_all, project_all
from mmjax.kernels.max import largest
from mmjax.types import Tokens


class Sum(nn.Module):
    """Sum of W_m x_m + b_m over the modalities that are present; zeros where none is.

    Attributes:
      width: size of the result.
    """

    width: int

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """{m: [b n d_m]} to [b width]."""
        del train
        projected = project_all(pool_all(tokens), self.width)
        return jnp.stack([x.values for x in projected.values()]).sum(axis=0)


class Mean(nn.Module):
    """Mean of W_m x_m + b_m over the modalities that are present; zeros where none is.

    Attributes:
      width: size of the result.
    """

    width: int

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """{m: [b n d_m]} to [b width]."""
        del train
        projected = project_all(pool_all(tokens), self.width).values()
        values = jnp.stack([x.values for x in projected])
        return mean_of_present(values, jnp.stack([x.present for x in projected]))


class Max(nn.Module):
    """Largest entry of W_m x_m + b_m over the modalities that are present; zeros where none is.

    Attributes:
      width: size of the result.
    """

    width: int

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """{m: [b n d_m]} to [b width]."""
        del train
        projected = project_all(pool_all(tokens), self.width).values()
        values = jnp.stack([x.values for x in projected])
        present = jnp.stack([x.present for x in projected])
        lowest = jnp.finfo(values.dtype).min
        entries = largest(jnp.where(present[:, :, None], values, lowest), axis=0)
        return jnp.where(present.any(axis=0)[:, None], entries, 0)
