"""What stands in for a modality that an example lacks."""

import flax.linen as nn
import jax.numpy as jnp

from mmjax.types import Tokens


class StandIn(nn.Module):
    """Gives examples without a modality one token of it, so that a fusion sees no gap.

    Attributes:
      learned: whether the token is learned, or zeros.
    """

    learned: bool = False

    @nn.compact
    def __call__(self, tokens: Tokens) -> Tokens:
        """Tokens [b n d] to [b n d], of which at least the first is real in every example."""
        init = nn.initializers.normal(0.02) if self.learned else nn.initializers.zeros
        width = tokens.values.shape[-1:]
        token = self.param("token", init, width) if self.learned else jnp.zeros(width)
        missing = ~tokens.mask.any(axis=1)
        first = jnp.where(
            missing[:, None], token.astype(tokens.values.dtype)[None], tokens.values[:, 0]
        )
        return Tokens(
            jnp.concatenate([first[:, None], tokens.values[:, 1:]], axis=1),
            jnp.concatenate([(tokens.mask[:, 0] | missing)[:, None], tokens.mask[:, 1:]], axis=1),
        )
