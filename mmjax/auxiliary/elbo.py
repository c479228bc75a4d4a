"""The evidence lower bound of a multimodal variational autoencoder."""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.auxiliary.base import Gather, Sums, get_fused_vector, select_modalities
from mmjax.auxiliary.decoding import Decoders
from mmjax.types import Batch, Intermediates


def gaussian_kl(mean: Float[Array, "*b d"], variance: Float[Array, "*b d"]) -> Float[Array, "*b"]:
    """Computes KL(N(μ, diag σ²) ‖ N(0, I)) = ½ Σ (μ² + σ² - ln σ² - 1) in nats, at least 0.

    Source: Kingma, Welling, ICLR 2014 (arXiv:1312.6114), appendix B.

    Example:
      >>> gaussian_kl(jnp.array([[0.0, 0.0], [2.0, 0.0]]), jnp.ones((2, 2))).tolist()
      [0.0, 2.0]
    """
    return (mean**2 + variance - jnp.log(variance) - 1).sum(axis=-1) / 2


class ELBO(nn.Module):
    """MVAE's loss: -ELBO of all present modalities together, plus that of each alone.

    log p(X) ≥ ELBO(X) = Σ_{m in X} λ_m E_q log p(x_m | z) - β KL(q(z | X) ‖ N(0, I)), for λ_m = 1
    and β = 1. The expectation takes one z, drawn from q while training and its mean at test. q is
    the Gaussian of `fusion.ProductOfExperts` for X; z of all modalities together is the fused
    vector, so that the tasks and the decoders see the same draw. Likelihoods are summed over an
    input's elements; see `Decoders`. The loss is at least 0, since Gaussian likelihoods omit their
    constant.

    The terms of each modality alone train its expert for examples that lack the others. The paper
    adds random subsets too, for many modalities.

    Source: Wu, Goodman, NeurIPS 2018 (arXiv:1802.05335).

    Attributes:
      beta: β, weight of the KL term.
      weights: {modality: λ_m}, 1 for the others.
      sample: whether to draw z of each modality alone while training.
      decoders: decoders and likelihoods of the inputs.

    Example:
      >>> import functools
      >>> from mmjax.types import Tokens
      >>> x, present = jnp.ones((4, 3)), jnp.ones(4, bool)
      >>> tokens = {"image": Tokens(x[:, None], present[:, None])}
      >>> gaussian = expert = jnp.zeros((4, 5)), jnp.ones((4, 5))
      >>> sown = {"fusion": {"gaussian": gaussian, "experts": {"image": expert}}}
      >>> seen = Intermediates(tokens, jnp.zeros((4, 5)), {}, sown)
      >>> batch = Batch({"image": x}, {"image": present}, {}, {}, {})
      >>> key, options = jax.random.key(1), {"train": False, "gather": lambda x: x}
      >>> objective = ELBO()
      >>> call = functools.partial(objective.init_with_output, batch=batch, **options)
      >>> (total, count), _ = jax.jit(call)(key, seen, {})
      >>> float(count)  # examples
      4.0
    """

    beta: float = 1.0
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    sample: bool = True
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
        """Returns the total over this device's examples with any modality, and their number.

        Raises:
          ValueError: if the fusion is not a product of experts.
        """
        del predictions, gather
        select_modalities(self, seen, tuple(self.weights))
        sown = seen.sown["fusion"]
        if "gaussian" not in sown or "experts" not in sown:
            raise ValueError(
                "ELBO needs the Gaussian of each modality; use fusion.ProductOfExperts as the "
                "model's fusion."
            )
        joint = get_fused_vector(self, seen)
        errors, elements = self.decoders(dict.fromkeys(sorted(sown["experts"]), joint), batch)
        present = {m: elements[m] > 0 for m in errors}
        any_present = jnp.stack(list(present.values())).any(axis=0)
        # -ELBO(X) of all present modalities together. Decoders give errors of 0 for absent ones.
        losses = [jnp.where(any_present, self.beta * gaussian_kl(*sown["gaussian"]), 0)]
        losses += [self.weight(m) * errors[m] for m in errors]

        # -ELBO({x_m}) of each modality alone; the paper adds random subsets.
        alone = {m: _multiply_by_prior(*expert) for m, expert in sorted(sown["experts"].items())}
        errors, _ = self.decoders({m: self.draw(*q, train=train) for m, q in alone.items()}, batch)
        for m, q in alone.items():
            negative_elbo = self.weight(m) * errors[m] + self.beta * gaussian_kl(*q)
            losses.append(jnp.where(present[m], negative_elbo, 0))
        return jnp.stack(losses).sum(), any_present.sum().astype(jnp.float32)

    def weight(self, modality: str) -> float:
        """Returns λ_m."""
        return self.weights.get(modality, 1.0)

    def draw(
        self, mean: Float[Array, "b d"], variance: Float[Array, "b d"], *, train: bool
    ) -> Float[Array, "b d"]:
        """Draws from the Gaussian while training, with the key "dropout"; else returns its mean."""
        if not (train and self.sample):
            return mean
        noise = jax.random.normal(self.make_rng("dropout"), mean.shape, mean.dtype)
        # The reparametrization z = mu + sigma epsilon, so that the gradient passes through the
        # draw.
        return mean + jnp.sqrt(variance) * noise


def _multiply_by_prior(
    mean: Float[Array, "b d"], precision: Float[Array, "b d"]
) -> tuple[Float[Array, "b d"], Float[Array, "b d"]]:
    """Computes mean and variance of the Gaussian ∝ N(μ_m, σ_m²) N(0, I) of one expert."""
    # Precisions add up, that of the prior is 1; the prior's mean is 0.
    variance = 1 / (1 + precision)
    return mean * precision * variance, variance
