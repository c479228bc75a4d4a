"""Attention pooling: a learned query gathers all tokens into one vector."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.kernels.attention import dot_general_2d
from mmjax.pretrained.backbones.transformer_layers import (
    Activation,
    apply_mlp,
    make_layer_norm,
)


class AttentionPool(nn.Module):
    """Attends from one learned query to all tokens, then adds an MLP of the result.

    Source: Zhai et al., CVPR 2022 (arXiv:2106.04560), section 2.1.

    Attributes:
      heads: number of attention heads.
      hidden: width of the MLP's hidden layer.
      activation: that of the MLP.
      epsilon: of the norm before the MLP.

    Example:
      >>> pool = AttentionPool(heads=2, hidden=16, activation="gelu", epsilon=1e-6)
      >>> jax.eval_shape(pool.init_with_output, jax.random.key(0), jnp.zeros((3, 5, 8)))[0].shape
      (3, 8)
    """

    heads: int
    hidden: int
    activation: Activation
    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b d"]:
        """Maps tokens [b n d] to vectors [b d]."""
        """Maps tokens [b n d] to vectors [b d]."""
        b, _, d = x.shape
        query = self.param("query", nn.initializers.lecun_normal(), (1, d))
        # One kernel holds the projections of queries, keys and values, as in the weight files.
        project = nn.Dense(3 * d, dot_general=dot_general_2d, name="project")
        query = jnp.broadcast_to(project(query)[:, None, :d], (b, 1, d))
        keys, values = jnp.split(project(x)[..., d:], 2, axis=-1)
        heads = (v.reshape(b, -1, self.heads, d // self.heads) for v in (query, keys, values))
        y = jax.nn.dot_product_attention(*heads).reshape(b, d)
        y = nn.Dense(d, name="out")(y)
        z = make_layer_norm(self.epsilon, "norm")(y)
        return y + apply_mlp(z, self.hidden, self.activation)
