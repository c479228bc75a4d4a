"""AGM: keeps the modalities' advantages where they are on average in the training so far."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.balance.pullback import ModalityScores
from mmjax.modalities.imbalance.modulation.modulated import Modulation
from mmjax.modalities.imbalance.modulation.score_ratios import average_over_tasks

_MAX_EXPONENT = 20.0


class AgmState(NamedTuple):
    """State of `agm`.

    Attributes:
      total: sum of each modality's scores over the steps in which it had one.
      steps: number of those steps.
    """

    total: Float[Array, " m"]
    steps: Float[Array, " m"]


def agm(alpha: float = 1.0, *, limit: float = 7.0) -> Modulation:
    """Chooses exp(alpha (η_m - r_m)), at most exp(alpha limit); for `modulated`.

    r_m = exp(M / (M - 1) (s_m - s̄)) is a modality's advantage in this batch: with two modalities
    the ratio of their likelihoods, exp(s_a - s_b). η_m is the same of the scores' means over the
    steps before. So a modality that is further ahead than usual is slowed down, and one that is
    further behind is sped up. The score s_m is the mean log-likelihood, minus the loss, of the
    modality's response: the prediction from nothing plus the modality's Shapley value, which needs
    the predictions from all 2^M subsets. The means are over tasks, and s̄ over the M modalities with
    a score.

    Args:
      alpha: strength of the modulation.
      limit: maximum of η_m - r_m, which is not in the paper but in public code.

    Source: Li et al., "Boosting multi-modal model performance with adaptive gradient modulation",
    ICCV 2023 (arXiv:2308.07686).

    Raises:
      ValueError: if alpha or the limit is negative.

    Example:
      In the first step the modalities should be even: a is ahead, and is slowed down.

      >>> scores = ModalityScores(
      ...     ("a", "b"), jnp.zeros((2, 1)), jnp.array([[0.5], [1.0]]), jnp.ones((2, 1))
      ... )
      >>> method = agm(alpha=1.0)
      >>> factors, state = method.choose_factors(scores, method.init(("a", "b")))
      >>> import numpy as np
      >>> print(np.asarray(factors).round(3))  # exp(1 - exp(0.5)) and exp(1 - exp(-0.5))
      [0.523 1.482]
    """
    if not isinstance(alpha, jax.Array) and alpha < 0:
        raise ValueError(f"agm: alpha is {alpha}; it must be 0 or more.")
    if limit < 0:
        raise ValueError(f"agm: limit is {limit}; it must be 0 or more.")

    def init(modalities: Sequence[str]) -> AgmState:
        return AgmState(jnp.zeros(len(modalities)), jnp.zeros(len(modalities)))

    def choose_factors(
        scores: ModalityScores, state: AgmState
    ) -> tuple[Float[Array, " m"], AgmState]:
        losses, has_score = average_over_tasks(scores.losses, scores.counts)
        current = jnp.where(has_score, -losses, 0.0)
        usual = state.total / jnp.maximum(state.steps, 1)
        # Before its first score a modality has no usual advantage: it should be even.
        known = has_score & (state.steps > 0)
        difference = _compute_advantage(usual, known) - _compute_advantage(current, has_score)
        factors = jnp.exp(alpha * jnp.minimum(difference, limit))
        comparable = has_score & (has_score.sum() > 1)
        new = AgmState(state.total + current, state.steps + has_score)
        return jnp.where(comparable, factors, 1.0), new

    return Modulation("shapley", init, choose_factors)


def _compute_advantage(scores: Float[Array, " m"], has_score: Array) -> Float[Array, " m"]:
    """Returns exp(M / (M - 1) (s_m - s̄)) over the modalities with a score; 1 for the others."""
    count = has_score.sum()
    known = jnp.where(has_score, scores, 0.0)
    mean = known.sum() / jnp.maximum(count, 1)
    exponent = count / jnp.maximum(count - 1, 1) * (known - mean)
    # A likelihood can underflow; its exponent must not overflow.
    bounded = jnp.clip(exponent, -_MAX_EXPONENT, _MAX_EXPONENT)
    return jnp.where(has_score & (count > 1), jnp.exp(bounded), 1.0)
