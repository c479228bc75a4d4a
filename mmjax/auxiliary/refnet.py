"""Refiner: each modality's representation can be told from the fused one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.auxiliary.base import Gather, Sums, chosen, fused_vector, normalised
from mmjax.auxiliary.decoding import MLPDecoder
from mmjax.fusion.pooling import pool
from mmjax.types import Batch, Seen


def cosine_distance(a: Float[Array, "b d"], b: Float[Array, "b d"]) -> Float[Array, " b"]:
    """1 - cos(a_i, b_i), from 0 to 2; 1 where a vector is all zeros."""
    return jnp.maximum(1 - (normalised(a) * normalised(b)).sum(axis=1), 0)


class RefNet(nn.Module):
    """The refiner fusion network's loss: the cosine distance between what a small MLP makes of the
    fused vector and a modality's representation, the mean of its tokens.

    The mean is over examples and their present modalities. The representation counts as a
    constant, lest the encoders make it easy to tell by making it poor; they learn from what the
    fusion takes of them. The loss is at least 0. The paper's further contrastive loss, which needs
    labels, is not part of it.

    Source: Sankaran et al. 2021 (arXiv:2104.03435).

    Attributes:
      hidden: widths of every MLP.
      modalities: which are told; None is all.
    """

    hidden: tuple[int, ...] = (128,)
    modalities: tuple[str, ...] | None = None

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
        """Total and count over this device's examples and their modalities."""
        del predictions, batch, train, gather
        fused, totals, counts = fused_vector(self, seen), [], []
        for m in chosen(self, seen, self.modalities):
            wanted, present = pool(seen.tokens[m])
            decode = MLPDecoder(wanted.shape[1:], self.hidden, name=f"refine_{m}")
            distance = cosine_distance(decode(fused), jax.lax.stop_gradient(wanted))
            totals.append(jnp.where(present, distance, 0).sum())
            counts.append(present.sum().astype(jnp.float32))
        return jnp.stack(totals).sum(), jnp.stack(counts).sum()
