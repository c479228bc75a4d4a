"""The token that replaces a modality that an example lacks."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int

from mmjax.types import Tokens


class MissingToken(nn.Module):
    """Gives every example that lacks a modality one token of it.

    With `patterns`, the token is that of the pattern of the other modalities: the missing-modality
    bank of Flex-MoE, Yun et al., NeurIPS 2024 (arXiv:2410.08245), section 3.2. A row learns only
    from training examples with its pattern.

    Attributes:
      learned: whether the token is learned; otherwise it is zeros.
      patterns: number of learned tokens, one per pattern of the other modalities; None is one token
        for all patterns.

    Example:
      >>> tokens = Tokens(jnp.ones((2, 1, 3)), jnp.array([[True], [False]]))
      >>> MissingToken().apply({}, tokens).mask.tolist()
      [[True], [True]]
      >>> bank = {"params": {"bank": jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])}}
      >>> MissingToken(True, 2).apply(bank, tokens, jnp.array([1, 1])).values[1].tolist()
      [[4.0, 5.0, 6.0]]
    """

    learned: bool = False
    patterns: int | None = None

    @nn.compact
    def __call__(self, tokens: Tokens, pattern: Int[Array, " b"] | None = None) -> Tokens:
        """Returns tokens [b n d] with the token first in examples that have no token at all.

        Args:
          tokens: of one modality.
          pattern: number of each example's pattern, if there are several.
        """
        token = self.make_token(tokens.values.shape[-1], pattern)
        # The token takes the place of the first, masked one, so that shapes do not depend on the
        # data.
        missing = ~tokens.mask.any(axis=1)
        dtype = tokens.values.dtype
        first = jnp.where(
            missing[:, None],
            token.astype(dtype) if token.ndim == 2 else token.astype(dtype)[None],
            tokens.values[:, 0],
        )
        return Tokens(
            jnp.concatenate([first[:, None], tokens.values[:, 1:]], axis=1),
            jnp.concatenate([(tokens.mask[:, 0] | missing)[:, None], tokens.mask[:, 1:]], axis=1),
        )

    def make_token(self, width: int, pattern: Int[Array, " b"] | None) -> Array:
        """Returns the token, [d] for all examples or [b d] by their patterns."""
        if not self.learned:
            return jnp.zeros(width)
        init = nn.initializers.normal(0.02)
        if self.patterns is None:
            token: Array = self.param("token", init, (width,))
            return token
        bank = self.param("bank", init, (self.patterns, width))
        return bank[pattern]
