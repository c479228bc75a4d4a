"""CGGM: encoders whose modality improves less than the others learn faster."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.balance.pullback import ModalityScores
from mmjax.modalities.imbalance.modulation.modulated import Modulation
from mmjax.modalities.imbalance.modulation.score_ratios import average_over_tasks


class CggmState(NamedTuple):
    """State of `cggm`.

    Attributes:
      scores: each modality's last score.
      tasks: the tasks that it was a mean of, as bits; 0 before the first score.
    """

    scores: Float[Array, " m"]
    tasks: Int[Array, " m"]


def cggm(rho: float = 1.3) -> Modulation:
    """Chooses rho B_m, with B_m of `compute_lag_shares`; for `modulated`.

    The progress Δ_m of modality m is the rise of its score since the step before. The score is the
    mean of exp(-loss) of the prediction from the modality alone, averaged over tasks; the paper has
    the accuracy on the batch of a classifier per modality, which regression does not have. A
    modality without a score, or with labels of other tasks than in its last score, has no progress
    in that step and keeps its gradient, as one does without others to compare with.

    The paper's second part, which turns the gradient of the whole model, is the auxiliary objective
    `GradientDirection`.

    Args:
      rho: factor of all modulated gradients, 1.3 in the authors' code.

    Source: Guo et al., "Classifier-guided gradient modulation for enhanced multimodal learning",
    NeurIPS 2024 (arXiv:2411.01409).

    Raises:
      ValueError: if rho is not positive.

    Example:
      From the first to the second step a improves by 0.3 and b by 0.1.

      >>> method, ones = cggm(rho=1.0), jnp.ones((2, 1))
      >>> state = method.init(("a", "b"))
      >>> for likelihoods in ([[0.5], [0.25]], [[0.8], [0.35]]):
      ...     scores = ModalityScores(("a", "b"), jnp.array(likelihoods), jnp.zeros((2, 1)), ones)
      ...     factors, state = method.choose_factors(scores, state)
      ...     print(factors.round(2))
      [1. 1.]
      [0.25 0.75]
    """
    if not isinstance(rho, jax.Array) and not rho > 0:
        raise ValueError(f"cggm: rho is {rho}; it must be positive.")

    def init(modalities: Sequence[str]) -> CggmState:
        return CggmState(jnp.zeros(len(modalities)), jnp.zeros(len(modalities), jnp.int32))

    def choose_factors(
        scores: ModalityScores, state: CggmState
    ) -> tuple[Float[Array, " m"], CggmState]:
        means, has_score = average_over_tasks(scores.likelihoods, scores.counts)
        # Means over different tasks must not be compared.
        tasks = (scores.counts > 0).astype(jnp.int32) @ (1 << jnp.arange(scores.counts.shape[1]))
        comparable = has_score & (tasks == state.tasks)
        shares = compute_lag_shares(means - state.scores, comparable)
        factors = jnp.where(comparable & (comparable.sum() > 1), rho * shares, 1.0)
        return factors, CggmState(
            jnp.where(has_score, means, state.scores), jnp.where(has_score, tasks, state.tasks)
        )

    return Modulation("unimodal", init, choose_factors)


def compute_lag_shares(
    progress: Float[Array, " m"], comparable: Bool[Array, " m"]
) -> Float[Array, " m"]:
    """Computes B_m: the share of the other modalities in the progress of all, from 0 to 1.

    B_m = Σ_{k ≠ m} Δ_k / Σ_k Δ_k over the modalities whose progress Δ is known. In the paper the
    sum can be 0 or negative, and then B_m is infinite or has the wrong sign; here a modality that
    got worse has made no progress, and if none has made any, all lag equally: B_m = (M - 1) / M.
    It is 0 for modalities without a known progress and for a single one.

    Example:
      >>> everywhere = jnp.array([True, True])
      >>> compute_lag_shares(jnp.array([0.75, 0.25]), everywhere).tolist()
      [0.25, 0.75]
      >>> compute_lag_shares(jnp.array([0.5, -0.25]), everywhere).tolist()
      [0.0, 1.0]
      >>> compute_lag_shares(jnp.array([-0.5, -0.25]), everywhere).tolist()
      [0.5, 0.5]
    """
    gains = jnp.where(comparable, jnp.maximum(progress, 0.0), 0.0)
    count, total = comparable.sum(), gains.sum()
    even = 1 / jnp.maximum(count, 1)
    shares = jnp.where(total > 0, gains / jnp.where(total > 0, total, 1.0), even)
    return jnp.where(comparable & (count > 1), 1 - shares, 0.0)
