"""Fusion by concatenation."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import pool_all
from mmjax.types import Tokens


class Concat(nn.Module):
    """[x_1; ...; x_M] in the order of the modalities' names; a missing modality gives zeros."""

    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """{m: [b n d_m]} to [b d], where d is the sum of all d_m."""
        del train
        return jnp.concatenate([x.values for x in pool_all(tokens).values()], axis=-1)
