"""Tokens from features that were computed beforehand."""

import flax.linen as nn
from jaxtyping import Array, Int, Num

from mmjax.encoders.mlp import as_one_token, to_float
from mmjax.encoders.sequence import mask_padding
from mmjax.types import Tokens


class Features(nn.Module):
    """Passes vectors, or sequences of vectors, through unchanged; it has no parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> Features().apply({}, jnp.zeros((2, 3)), train=False).values.shape
      (2, 1, 3)
    """

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps [b d] to one token, and [b n d] to n tokens, masked from `length` on.

        Raises:
          ValueError: if x has another number of axes.
        """
        del train
        if x.ndim == 2:
            return as_one_token(to_float(x))
        if x.ndim != 3:
            raise ValueError(
                f"Features needs vectors [b d] or [b n d] but got shape {x.shape}; "
                "flatten them, or give them an encoder."
            )
        return mask_padding(x, length)
