"""Perceiver: learned latent vectors that attend to the tokens of all modalities."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import embed_modalities, pool
from mmjax.kernels.attention import (
    TransformerLayer,
    TransformerStack,
    check_heads_divide_width,
    concatenate_tokens,
)
from mmjax.types import Tokens


class Perceiver(nn.Module):
    """Learned latent vectors attend to all tokens, then to themselves, a few times; their mean.

    Source: Jaegle et al., ICML 2021 (arXiv:2103.03206), with weights that are not shared between
    the rounds.

    Attributes:
      width: size of latents, tokens and result.
      latents: number of latent vectors.
      rounds: number of times that the latents attend to the tokens.
      layers: number of self-attention layers after each of these.
      heads: number of attention heads.
      dropout: rate within the layers, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> fusion = Perceiver(8, latents=3, heads=2)
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 8)
    """

    width: int
    latents: int = 8
    rounds: int = 1
    layers: int = 1
    heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_heads_divide_width(self.width, self.heads)
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width]; zeros if no modality is present."""
        context = concatenate_tokens(list(embed_modalities(tokens, self.width).values()))
        learned = self.param("latents", nn.initializers.normal(1.0), (self.latents, self.width))
        size = context.mask.shape[0]
        values = jnp.broadcast_to(learned, (size, *learned.shape)).astype(context.values.dtype)
        x = Tokens(values, jnp.ones((size, self.latents), bool))
        for i in range(self.rounds):
            # The cost of attention to n tokens is latents times n, not n^2.
            cross = TransformerLayer(self.heads, dropout=self.dropout, name=f"look_{i}")
            latent = TransformerStack(
                self.layers, self.heads, dropout=self.dropout, name=f"think_{i}"
            )
            x = latent(cross(x, context, train=train), train=train)
        # The latents exist without any input, so that an empty example needs zeros explicitly.
        return jnp.where(context.mask.any(axis=1)[:, None], pool(x).values, 0)
