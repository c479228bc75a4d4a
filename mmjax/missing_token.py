"""The token that replaces a modality that an example lacks."""

import flax.linen as nn
import jax.numpy as jnp

from mmjax.types import Tokens


class MissingToken(nn.Module):
    """Gives every example that lacks a modality one token of it.

    Attributes:
      learned: whether the token is learned; otherwise it is zeros.

    Example:
      >>> tokens = Tokens(jnp.ones((2, 1, 3)), jnp.array([[True], [False]]))
      >>> MissingToken().apply({}, tokens).mask.tolist()
      [[True], [True]]
    """

    learned: bool = False

    @nn.compact
    def __call__(self, tokens: Tokens) -> Tokens:
        """Returns tokens [b n d] with the token first in examples that have no token at all."""
        init = nn.initializers.normal(0.02) if self.learned else nn.initializers.zeros
        width = tokens.values.shape[-1:]
        token = self.param("token", init, width) if self.learned else jnp.zeros(width)
        # The token takes the place of the first, masked one, so that shapes do not depend on the
        # data.
        missing = ~tokens.mask.any(axis=1)
        first = jnp.where(
            missing[:, None], token.astype(tokens.values.dtype)[None], tokens.values[:, 0]
        )
        return Tokens(
            jnp.concatenate([first[:, None], tokens.values[:, 1:]], axis=1),
            jnp.concatenate([(tokens.mask[:, 0] | missing)[:, None], tokens.mask[:, 1:]], axis=1),
        )
