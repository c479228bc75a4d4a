"""Fusion of beliefs: the product of one Gaussian a modality and a prior."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import pool_all
from mmjax.types import Tokens


class ProductOfExperts(nn.Module):
    """The latent vector of N(0, I) ∏_m N(μ_m, σ_m²), over the modalities that are present.

    The product is Gaussian, with precision 1 + Σ 1/σ_m² and mean Σ μ_m/σ_m² over that. While
    training the result is drawn from it; at test it is its mean. Without any modality the prior is
    left.

    The result's mean and variance [b d] are sown as "gaussian", and as "experts" each modality's
    μ_m and 1/σ_m², which is 0 where it is absent.

    Source: Wu, Goodman, NeurIPS 2018 (arXiv:1802.05335), section 2.1.

    Attributes:
      width: size of the result.
      sample: whether to draw while training.
    """

    width: int
    sample: bool = True

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """{m: [b n d_m]} to [b width]; draws with the key "dropout"."""
        weighted, precision, experts = [], [], {}
        for m, x in pool_all(tokens).items():
            mean = nn.Dense(self.width, name=f"mean_{m}")(x.values)
            exactness = jnp.exp(-nn.Dense(self.width, name=f"log_variance_{m}")(x.values))
            exactness = jnp.where(x.present[:, None], exactness, 0)
            weighted.append(mean * exactness)
            precision.append(exactness)
            experts[m] = (mean, exactness)
        total = 1 + jnp.stack(precision).sum(axis=0)
        mean, variance = jnp.stack(weighted).sum(axis=0) / total, 1 / total
        self.sow("intermediates", "experts", experts)
        self.sow("intermediates", "gaussian", (mean, variance))
        if not (train and self.sample):
            return mean
        noise = jax.random.normal(self.make_rng("dropout"), mean.shape, mean.dtype)
        return mean + jnp.sqrt(variance) * noise
