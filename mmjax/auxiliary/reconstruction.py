"""Reconstruction of the inputs from the model's representations."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mmjax.auxiliary.base import Gather, Sums, get_fused_vector, select_modalities
from mmjax.auxiliary.decoding import Decoders
from mmjax.fusion.pooling import pool
from mmjax.types import Batch, Intermediates


class Reconstruction(nn.Module):
    """The loss of decoding inputs from the fused vector, or from another modality.

    The loss is the mean over examples and modalities of the mean negative log-likelihood of an
    input's elements; see `Decoders`. Padding and absent modalities do not count. It is at least 0.

    Source: Ngiam et al., "Multimodal deep learning", ICML 2011, section 3.

    Attributes:
      source: "fused", or the modality, as the mean of its tokens, from which the others are
        decoded if both are present.
      modalities: the decoded modalities; None is all but the source.
      decoders: decoders and likelihoods of the inputs.

    Example:
      >>> from mmjax.types import Tokens
      >>> import functools, jax
      >>> x, present = jnp.ones((4, 3)), jnp.ones(4, bool)
      >>> tokens = {"image": Tokens(x[:, None], present[:, None])}
      >>> seen = Intermediates(tokens, jnp.ones((4, 5)), {}, {"fusion": {}, "sharing": {}})
      >>> batch = Batch({"image": x}, {"image": present}, {}, {}, {})
      >>> key, options = jax.random.key(1), {"train": False, "gather": lambda x: x}
      >>> objective = Reconstruction()
      >>> call = functools.partial(objective.init_with_output, batch=batch, **options)
      >>> (total, count), _ = jax.jit(call)(key, seen, {})
      >>> float(count)  # examples and modalities
      4.0
    """

    source: str = "fused"
    modalities: tuple[str, ...] | None = None
    decoders: Decoders = dataclasses.field(default_factory=Decoders)

    @nn.compact
    def __call__(
        self,
        seen: Intermediates,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Returns total and count over this device's examples and their modalities."""
        del predictions, train, gather
        targets = select_modalities(self, seen, self.modalities)
        if self.source == "fused":
            z = get_fused_vector(self, seen)
            has_source = jnp.ones(len(z), bool)
        else:
            select_modalities(self, seen, (self.source,))
            z, has_source = pool(seen.tokens[self.source])
            targets = tuple(m for m in targets if m != self.source)
        if not targets:
            raise ValueError(
                f"Reconstruction has source={self.source!r} and nothing else to decode; name "
                "another source, such as 'fused'."
            )
        errors, elements = self.decoders(dict.fromkeys(targets, z), batch)
        means, counts = [], []
        for m in targets:
            # An absent source would be decoded from zeros, and an absent target has nothing to
            # compare with.
            counts.append(has_source & (elements[m] > 0))
            means.append(jnp.where(counts[-1], errors[m] / jnp.maximum(elements[m], 1), 0))
        return jnp.stack(means).sum(), jnp.stack(counts).sum().astype(jnp.float32)
