"""Fusion by attention over modalities with a learned query."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import pool_modalities, project_modalities
from mmjax.kernels.attention import Attention, check_heads_divide_width
from mmjax.types import Tokens


class AttentionPool(nn.Module):
    """Attention of a learned query q to the present modalities: Σ_m softmax_m(q·K x_m / √d) V x_m.

    Each x_m is the tanh of the modality's projected mean token; the bias of the projection
    identifies the modality. Without any modality the result is zeros.

    Attributes:
      width: size of the result.
      heads: number of attention heads.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> fusion = AttentionPool(8, heads=2)
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 8)
    """

    width: int
    heads: int = 1

    def __post_init__(self) -> None:
        check_heads_divide_width(self.width, self.heads)
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width]."""
        del train
        projected = project_modalities(pool_modalities(tokens), self.width)
        context = Tokens(
            jnp.stack([x.values for x in projected.values()], axis=1),
            jnp.stack([x.present for x in projected.values()], axis=1),
        )
        values = nn.tanh(context.values)
        query = self.param("query", nn.initializers.normal(1.0), (1, 1, self.width))
        # One query for all examples; its single output token is the fused vector.
        queries = jnp.broadcast_to(query, (values.shape[0], 1, self.width)).astype(values.dtype)
        attend = Attention(self.heads, name="attention")
        return attend(queries, Tokens(values, context.mask))[:, 0]
