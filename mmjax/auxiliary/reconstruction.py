"""Reconstruction: the inputs can be told from what the model makes of them."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mmjax.auxiliary.base import Gather, Sums, chosen, fused_vector
from mmjax.auxiliary.decoding import Decoders
from mmjax.fusion.pooling import pool
from mmjax.types import Batch, Seen


class Reconstruction(nn.Module):
    """Decodes inputs from the fused vector, or from another modality.

    The loss is the mean over examples and modalities of the mean negative log-likelihood of an
    input's elements; see `Decoders`. Padding and absent modalities do not count. It is at least 0.

    Source: Ngiam et al., "Multimodal deep learning", ICML 2011, section 3.

    Attributes:
      source: "fused", or the modality, as the mean of its tokens, from which the others are
        decoded where both are present.
      modalities: which are decoded; None is all but the source.
      decoders: how.
    """

    source: str = "fused"
    modalities: tuple[str, ...] | None = None
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
        """Total and count over this device's examples and their modalities."""
        del predictions, train, gather
        targets = chosen(self, seen, self.modalities)
        if self.source == "fused":
            z = fused_vector(self, seen)
            known = jnp.ones(len(z), bool)
        else:
            chosen(self, seen, (self.source,))
            z, known = pool(seen.tokens[self.source])
            targets = tuple(m for m in targets if m != self.source)
        if not targets:
            raise ValueError(
                f"Reconstruction has source={self.source!r} and nothing else to decode; name "
                "another source, such as 'fused'."
            )
        errors, elements = self.decoders(dict.fromkeys(targets, z), batch)
        counted = {m: known & (elements[m] > 0) for m in targets}
        means = {m: errors[m] / jnp.maximum(elements[m], 1) for m in targets}
        total = jnp.stack([jnp.where(counted[m], means[m], 0) for m in targets]).sum()
        return total, jnp.stack(list(counted.values())).sum().astype(jnp.float32)
