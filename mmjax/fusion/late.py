"""Late fusion: every modality predicts for itself, and the predictions are averaged."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.fusion.pooling import pool_all
from mmjax.types import Branches, Tokens


class Late(nn.Module):
    """Dense + ReLU a modality, and the weights with which the branches' predictions are averaged.

    An example with no modality at all has weights of zero.

    Attributes:
      width: size of every branch.
      learned: False averages over the modalities that are present; True weights them by the
        softmax, over those present, of one learned number a modality.
    """

    width: int
    learned: bool = False

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Branches:
        """{m: [b n d_m]} to branches [b width] and weights [b] for each modality."""
        del train
        pooled = pool_all(tokens)
        values = {
            m: nn.relu(nn.Dense(self.width, name=f"project_{m}")(x.values))
            for m, x in pooled.items()
        }
        dtype = next(iter(values.values())).dtype
        logits = jnp.stack([self.logit(m).astype(dtype) for m in pooled])
        weights = masked_softmax(logits, jnp.stack([x.present for x in pooled.values()]))
        return Branches(values, dict(zip(pooled, weights, strict=True)))

    def logit(self, modality: str) -> Float[Array, ""]:
        """The modality's learned number, or 0, which makes the softmax a mean."""
        if not self.learned:
            return jnp.zeros(())
        return self.param(f"logit_{modality}", nn.initializers.zeros, ())


def masked_softmax(logits: Float[Array, " m"], present: Bool[Array, "m b"]) -> Float[Array, "m b"]:
    """Softmax over the modalities present in each example; zeros where none is."""
    lowest = jnp.finfo(logits.dtype).min
    share = nn.softmax(jnp.where(present, logits[:, None], lowest), axis=0)
    return jnp.where(present, share, 0)
