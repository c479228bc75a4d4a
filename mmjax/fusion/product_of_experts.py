"""Fusion by a product of experts: one Gaussian per modality and a prior."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import pool_modalities
from mmjax.types import Tokens


class ProductOfExperts(nn.Module):
    """The latent vector z ~ q ∝ N(0, I) ∏_m N(μ_m, σ_m²), over the present modalities.

    q = N(μ, σ²) with precision 1/σ² = 1 + Σ_m 1/σ_m² and mean μ = σ² Σ_m μ_m/σ_m². While training
    the result is drawn from q; at test it is μ. Without any modality q is the prior.

    (μ, σ²) [b d] are sown as "gaussian", and as "experts" each modality's (μ_m, 1/σ_m²), with
    1/σ_m² = 0 if it is absent.

    Source: Wu, Goodman, NeurIPS 2018 (arXiv:1802.05335), section 2.1.

    Attributes:
      width: size of the result.
      sample: whether to draw while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> fusion = ProductOfExperts(4)
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 4)
    """

    width: int
    sample: bool = True

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width]; draws with the key "dropout"."""
        weighted_means, precisions, experts = [], [], {}
        for m, x in pool_modalities(tokens).items():
            mean = nn.Dense(self.width, name=f"mean_{m}")(x.values)
            precision = jnp.exp(-nn.Dense(self.width, name=f"log_variance_{m}")(x.values))
            # Precision 0 is an expert without opinion: absent modalities drop out.
            precision = jnp.where(x.present[:, None], precision, 0)
            weighted_means.append(mean * precision)
            precisions.append(precision)
            experts[m] = (mean, precision)
        # Gaussians multiply by adding precisions, and precision-weighted means; 1 is the prior's.
        precision = 1 + jnp.stack(precisions).sum(axis=0)
        mean, variance = jnp.stack(weighted_means).sum(axis=0) / precision, 1 / precision
        self.sow("intermediates", "experts", experts)
        self.sow("intermediates", "gaussian", (mean, variance))
        if not (train and self.sample):
            return mean
        noise = jax.random.normal(self.make_rng("dropout"), mean.shape, mean.dtype)
        return mean + jnp.sqrt(variance) * noise
