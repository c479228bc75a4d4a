"""Fusion by gates: each modality's gate is computed from all modalities."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import concatenate_pooled, pool_modalities
from mmjax.types import Tokens


class Gated(nn.Module):
    """Gated multimodal unit: h = Σ_m z_m ⊙ tanh(W_m x_m), z_m = σ(U_m [x_1; ...; x_M]).

    This is the paper's unit for any number of modalities, with one gate each. Its special case for
    two ties their gates (z and 1 - z); here they stay free, so that two and three behave alike.
    Both maps have a bias. A missing modality enters the gates as zeros and the sum not at all.

    Source: Arevalo et al., "Gated multimodal units for information fusion", 2017, section 3.

    Attributes:
      width: size of the result.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> call = functools.partial(Gated(4).init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 4)
    """

    width: int

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width]."""
        del train
        pooled = pool_modalities(tokens)
        # z_m depends on all modalities, absent ones as zeros; h = sum_m z_m * tanh(W_m x_m).
        everything, _ = concatenate_pooled(pooled)
        terms = []
        for m, (values, present) in pooled.items():
            content = nn.tanh(nn.Dense(self.width, name=f"project_{m}")(values))
            gate = nn.sigmoid(nn.Dense(self.width, name=f"gate_{m}")(everything))
            terms.append(jnp.where(present[:, None], gate * content, 0))
        return jnp.stack(terms).sum(axis=0)
