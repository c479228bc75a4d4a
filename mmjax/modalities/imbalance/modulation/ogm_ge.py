"""OGM-GE: slows the encoder of the dominant modality down, and adds noise."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.balance.pullback import ModalityScores
from mmjax.modalities.imbalance.modulation.modulated import Modulation
from mmjax.modalities.imbalance.modulation.score_ratios import (
    average_over_tasks,
    compare_with_others,
)


def ogm_ge(alpha: float = 0.5, *, noise: bool = True, offset: float = 1.0) -> Modulation:
    """Chooses 1 - tanh(alpha (ρ_m - offset)₊) if ρ_m > 1, and 1 otherwise; for `modulated`.

    ρ_m is the modality's score over the mean score of the others. A score is the mean of exp(-loss)
    of the prediction from the modality alone, which for cross-entropy is the probability of the
    true class, averaged over tasks.

    Args:
      alpha: strength of the modulation; the paper tunes it per data set, from 0.1 to 1.
      noise: whether Gaussian noise with the standard deviation of each gradient array's entries is
        added to the gradients of the encoders ("generalization enhancement"); False is OGM.
      offset: 1 makes the factor continuous where the modalities are balanced. 0 is equation (10) of
        the paper as its authors' code quotes it: there the factor jumps from 1 to 1 - tanh(alpha)
        as soon as a modality is ahead.

    Source: Peng et al., "Balanced multimodal learning via on-the-fly gradient modulation", CVPR
    2022 (arXiv:2203.15332), for two modalities and one task.

    Raises:
      ValueError: if alpha is negative, or the offset is not between 0 and 1.

    Example:
      Modality a is three times as good as b.

      >>> scores = ModalityScores(
      ...     ("a", "b"), jnp.array([[0.75], [0.25]]), jnp.zeros((2, 1)), jnp.ones((2, 1))
      ... )
      >>> factors, _ = ogm_ge(alpha=0.5).choose_factors(scores, ())
      >>> print(factors.round(3))  # 1 - tanh(0.5 (3 - 1)) and 1
      [0.238 1.   ]
    """
    if not isinstance(alpha, jax.Array) and alpha < 0:
        raise ValueError(f"ogm_ge: alpha is {alpha}; it must be 0 or more.")
    if not 0 <= offset <= 1:
        raise ValueError(f"ogm_ge: offset is {offset}; it must be between 0 and 1.")

    def init(modalities: Sequence[str]) -> tuple[()]:
        return ()

    def choose_factors(scores: ModalityScores, state: Any) -> tuple[Float[Array, " m"], Any]:
        means, has_score = average_over_tasks(scores.likelihoods, scores.counts)
        ratio = compare_with_others(means, has_score)
        slowed = 1 - jnp.tanh(alpha * (ratio - offset))
        return jnp.where(ratio > 1, slowed, 1.0), state

    return Modulation("unimodal", init, choose_factors, noise)
