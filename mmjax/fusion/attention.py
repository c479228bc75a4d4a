"""Fusion by attention over modalities with a learned query."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import pool_all, project_all
from mmjax.kernels.attention import Attention, check_heads
from mmjax.types import Tokens


class AttentionPool(nn.Module):
    """What a learned query finds among the modalities that are present; zeros where none is.

    Each modality is one projected vector, to which a learned vector says which it is.

    Attributes:
      width: size of the result.
      heads: number of attention heads.
    """

    width: int
    heads: int = 1

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """{m: [b n d_m]} to [b width]."""
        del train
        projected = project_all(pool_all(tokens), self.width)
        context = Tokens(
            jnp.stack([x.values for x in projected.values()], axis=1),
            jnp.stack([x.present for x in projected.values()], axis=1),
        )
        values = nn.tanh(context.values)
        query = self.param("query", nn.initializers.normal(1.0), (1, 1, self.width))
        queries = jnp.broadcast_to(query, (len(values), 1, self.width)).astype(values.dtype)
        attend = Attention(self.heads, name="attention")
        return attend(queries, Tokens(values, context.mask))[:, 0]
