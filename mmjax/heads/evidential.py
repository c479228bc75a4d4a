"""Heads that combine the predictions of several branches by a rule of their own."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax import losses
from mmjax.heads.base import Loss, apply_output_layers
from mmjax.heads.classification import Classification


class Evidential(Classification):
    """Predicts a Dirichlet distribution over the class probabilities, whose mass is evidence.

    The output is log α with α = 1 + evidence and evidence = softplus(logits): its softmax is the
    expected probabilities α / Σα, so that all metrics of `Classification` apply, and the
    uncertainty u = classes / Σα is 1 without evidence. Under late fusion the branches' opinions,
    belief evidence_k / Σα and uncertainty u, are combined by Dempster's rule. With `fusion.Late`,
    `auxiliary.BranchLosses` and `auxiliary.DirichletKL` this is TMC; with `Late(joint=True)`, ETMC.

    Source: Han et al., "Trusted multi-view classification", ICLR 2021 (arXiv:2102.02051), and
    TPAMI 2022 (arXiv:2204.11423).

    Attributes:
      loss: (log α [c], class index or shares [c]) -> scalar.

    Example:
      >>> head = Evidential(classes=3)
      >>> log_alpha, _ = head.init_with_output(jax.random.key(0), jnp.zeros((2, 5)))
      >>> print(jax.nn.softmax(log_alpha).round(3)[0])
      [0.333 0.333 0.333]
    """

    loss: Loss = losses.dirichlet_cross_entropy

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], *, train: bool = False) -> Float[Array, "b c"]:
        """Maps features [b d] to log α [b classes], at least 0."""
        return jnp.log1p(nn.softplus(apply_output_layers(x, self.hidden, self.classes)))

    @nn.nowrap
    def combine(
        self, predictions: Mapping[str, Float[Array, "b c"]], weights: Mapping[str, Array]
    ) -> Float[Array, "b c"]:
        """Combines the log α of all branches whose weight is above 0 by Dempster's rule."""
        present = jnp.stack([weights[m] > 0 for m in predictions])
        return combine_evidence(jnp.stack(list(predictions.values())), present)


class EnergyWeighted(Classification):
    """Classifies; under late fusion the branches' logits are added by weights of their energy.

    The logits are Σ_m w_m f_m over the present branches, w_m = log Σ_k exp(f_m,k) / 10: a branch
    is trusted by how large its logits are. The weights are constants for the gradient. With `Late`,
    `auxiliary.BranchLosses` and `auxiliary.ConfidenceRanking` this is QMF.

    Source: Zhang et al., "Provable dynamic fusion for low-quality multimodal data", ICML 2023
    (arXiv:2306.02050). The paper lets weights be any decreasing function of the energy -log Σ exp;
    the division by 10 is that of the authors' code.

    Example:
      >>> head = EnergyWeighted(classes=2)
      >>> logits = {"a": jnp.array([[10.0, 0.0]]), "b": jnp.array([[0.0, 1.0]])}
      >>> weights = {"a": jnp.array([0.5]), "b": jnp.array([0.5])}
      >>> [f"{x:.2f}" for x in head.combine(logits, weights)[0]]
      ['10.00', '0.13']
    """

    @nn.nowrap
    def combine(
        self, predictions: Mapping[str, Float[Array, "b c"]], weights: Mapping[str, Array]
    ) -> Float[Array, "b c"]:
        """Adds the logits of all branches whose weight is above 0."""
        terms = []
        for m, logits in predictions.items():
            confidence = jnp.where(weights[m] > 0, compute_confidence(logits), 0)
            terms.append(jax.lax.stop_gradient(confidence)[:, None] * logits)
        return jnp.stack(terms).sum(axis=0)


def combine_evidence(
    log_alpha: Float[Array, "m b c"], present: Array | None = None
) -> Float[Array, "b c"]:
    """Combines opinions by Dempster's rule; those of absent branches, which may be anything, not.

    The reduced rule for belief b and uncertainty u of two opinions is, with C = Σ_{i≠j} b¹_i b²_j,

        b_k = (b¹_k b²_k + b¹_k u² + b²_k u¹) / (1 - C),   u = u¹ u² / (1 - C).

    In terms of r_k = b_k / u = evidence_k / classes it is 1 + r_k = (1 + r¹_k)(1 + r²_k), a
    product over any number of opinions, in any order, in which no evidence is the factor 1.

    Args:
      log_alpha: log(1 + evidence) of each branch.
      present: which branches count, [m b]; None is all.

    Returns:
      log(1 + evidence) of the combination; 0 where nothing is present.

    Example:
      >>> alpha = jnp.array([[[5.0, 1.0]], [[3.0, 3.0]]])  # evidence (4, 0) and (2, 2)
      >>> [f"{x:.2f}" for x in jnp.exp(combine_evidence(jnp.log(alpha)))[0]]  # 1 + 2 (3 · 2 - 1), 3
      ['11.00', '3.00']
    """
    classes = log_alpha.shape[-1]
    if present is not None:
        # log α = 0 is no evidence, the neutral opinion of the combination.
        log_alpha = jnp.where(present[..., None], log_alpha, 0)
    # Per class, Dempster's rule multiplies 1 + evidence / classes over the opinions; the sum of
    # logarithms does not overflow.
    log_factor = jnp.log1p(jnp.expm1(log_alpha) / classes).sum(axis=0)
    # α = 1 + c (exp(x) - 1) without overflow: x + log(c - (c - 1) exp(-x)).
    return log_factor + jnp.log(classes - (classes - 1) * jnp.exp(-log_factor))


def compute_confidence(logits: Float[Array, "*b c"]) -> Float[Array, "*b"]:
    """Computes QMF's confidence, the negative energy log Σ_k exp(logit_k) divided by 10.

    Example:
      >>> print(f"{compute_confidence(jnp.zeros(4)):.3f}")  # ln 4 / 10
      0.139
    """
    return jax.nn.logsumexp(logits, axis=-1) / 10
