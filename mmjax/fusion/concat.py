"""Fusion by concatenation."""

import flax.linen as nn
from jaxtyping import Array, Float

from mmjax.fusion.pooling import concatenate_pooled, pool_modalities
from mmjax.types import Tokens


class Concat(nn.Module):
    """[x_1; ...; x_M] in the order of the modalities' names; a missing modality gives zeros.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> call = functools.partial(Concat().init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 8)
    """

    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b d], where d is the sum of all d_m."""
        del train
        return concatenate_pooled(pool_modalities(tokens))[0]
