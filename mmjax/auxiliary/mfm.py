"""Factorized reconstruction, from a common factor and one factor per modality."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mmjax.auxiliary.base import Gather, Sums, get_fused_vector, select_modalities
from mmjax.auxiliary.decoding import Decoders
from mmjax.auxiliary.discrepancy import mmd_to_normal
from mmjax.fusion.pooling import pool
from mmjax.types import Batch, Intermediates


class MFM(nn.Module):
    """The loss of the multimodal factorization model: Σ_m error_m + λ MMD²(Z, N(0, I)).

    Z = [z_y; z_1; ...; z_M] holds the fused vector z_y, from which the heads predict, and per
    modality z_m, a linear map of the mean of its tokens. An input is decoded from Dense + ReLU of
    z_m concatenated with Dense + ReLU of z_y, and its error is the mean negative log-likelihood of
    its elements; see `Decoders`. The prior makes the factors independent of each other. Its MMD is
    exact, not sampled, over the examples of all devices that have every modality. The loss is at
    least 0.

    The paper has separate encoders for z_m; here they share the model's.

    Source: Tsai et al., ICLR 2019 (arXiv:1806.06176).

    Attributes:
      width: of each z_m.
      hidden: width of the Dense + ReLU of each factor.
      prior: λ.
      decoders: decoders and likelihoods of the inputs.

    Example:
      >>> from mmjax.types import Tokens
      >>> import functools, jax
      >>> x, present = jnp.ones((4, 3)), jnp.ones(4, bool)
      >>> tokens = {"image": Tokens(x[:, None], present[:, None])}
      >>> seen = Intermediates(tokens, jnp.ones((4, 5)), {}, {"fusion": {}, "sharing": {}})
      >>> batch = Batch({"image": x}, {"image": present}, {}, {}, {})
      >>> key, options = jax.random.key(1), {"train": False, "gather": lambda x: x}
      >>> objective = MFM(width=2, hidden=4)
      >>> call = functools.partial(objective.init_with_output, batch=batch, **options)
      >>> (total, count), _ = jax.jit(call)(key, seen, {})
      >>> float(count)  # examples
      4.0
    """

    width: int = 32
    hidden: int = 64
    prior: float = 1.0
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
        """Returns the total over this device's examples with any modality, and their number."""
        del predictions, train
        z_y = get_fused_vector(self, seen)
        pooled = {m: pool(seen.tokens[m]) for m in select_modalities(self, seen, None)}
        z = {m: nn.Dense(self.width, name=f"factor_{m}")(x.values) for m, x in pooled.items()}

        common = nn.relu(nn.Dense(self.hidden, name="common")(z_y))
        # G_m(z_m, z_y): every decoder gets the modality's own factor and the common one.
        decoder_inputs = {}
        for m in z:
            specific = nn.relu(nn.Dense(self.hidden, name=f"own_{m}")(z[m]))
            decoder_inputs[m] = jnp.concatenate([specific, common], axis=1)
        errors, elements = self.decoders(decoder_inputs, batch)
        means = [errors[m] / jnp.maximum(elements[m], 1) for m in z]
        any_present = jnp.stack([elements[m] > 0 for m in z]).any(axis=0)

        # One row [z_y; z_1; ...; z_M] per example, compared with N(0, I) over the examples that
        # have all.
        Z = gather(jnp.concatenate([z_y, *z.values()], axis=1))
        complete = gather(jnp.stack([x.present for x in pooled.values()]).all(axis=0))
        mmd2 = jnp.where(complete.any(), mmd_to_normal(Z, complete), 0)
        count = any_present.sum().astype(jnp.float32)
        # The prior is a mean over the batch; times the count it is a total like the errors.
        return jnp.stack(means).sum() + self.prior * mmd2 * count, count
