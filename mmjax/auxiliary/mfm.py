"""Factorised reconstruction: what the tasks need, and what each modality has for itself."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mmjax.auxiliary.base import Gather, Sums, chosen, fused_vector
from mmjax.auxiliary.decoding import Decoders
from mmjax.auxiliary.discrepancy import mmd_to_normal
from mmjax.fusion.pooling import pool
from mmjax.types import Batch, Seen


class MFM(nn.Module):
    """What the multimodal factorisation model adds: Σ_m error_m + λ MMD²(Z, N(0, I)).

    Z holds z_y, what the fusion makes, from which the heads predict, and for each modality z_m, a
    linear map of its own tokens' mean. An input is decoded from Dense + ReLU of z_m beside Dense +
    ReLU of z_y, and its error is the mean negative log-likelihood of its elements; see `Decoders`.
    The prior makes the factors independent of each other. Its MMD is exact, not sampled, over the
    batch of all devices and those examples that have every modality. The loss is at least 0.

    The paper has encoders of their own for z_m; here they share the model's.

    Source: Tsai et al., ICLR 2019 (arXiv:1806.06176).

    Attributes:
      width: of each z_m.
      hidden: width of what is made of each factor for the decoders.
      prior: λ.
      decoders: how inputs are decoded.
    """

    width: int = 32
    hidden: int = 64
    prior: float = 1.0
    decoders: Decoders = dataclasses.field(default_factory=Decoders)

    @nn.compact
    def __call__(
        self,
        seen: Seen,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Total over this device's examples that have a modality, and how many they are."""
        del predictions, train
        common = fused_vector(self, seen)
        tokens = {m: pool(seen.tokens[m]) for m in chosen(self, seen, None)}
        own = {m: nn.Dense(self.width, name=f"factor_{m}")(x.values) for m, x in tokens.items()}

        of_common = nn.relu(nn.Dense(self.hidden, name="common")(common))
        decoded = {
            m: jnp.concatenate([nn.relu(nn.Dense(self.hidden, name=f"own_{m}")(z)), of_common], 1)
            for m, z in own.items()
        }
        errors, elements = self.decoders(decoded, batch)
        means = [errors[m] / jnp.maximum(elements[m], 1) for m in own]
        some = jnp.stack([elements[m] > 0 for m in own]).any(axis=0)

        factors = gather(jnp.concatenate([common, *own.values()], axis=1))
        whole = gather(jnp.stack([x.present for x in tokens.values()]).all(axis=0))
        apart = jnp.where(whole.any(), mmd_to_normal(factors, whole), 0)
        count = some.sum().astype(jnp.float32)
        return jnp.stack(means).sum() + self.prior * apart * count, count
