"""Fusion by the mean of projections."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pool import pool_all
from mmjax.types import Tokens


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
        pooled = pool_all(tokens)
        present = jnp.stack([x.present for x in pooled.values()])
        projected = jnp.stack(
            [nn.Dense(self.width, name=f"project_{m}")(x.values) for m, x in pooled.items()]
        )
        total = jnp.where(present[:, :, None], projected, 0).sum(axis=0)
        count = jnp.maximum(present.sum(axis=0), 1).astype(total.dtype)
        return total / count[:, None]
