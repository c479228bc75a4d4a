"""AMCo: drops more and more of the features of the modality on which the model depends."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.balance import Balancer
from mmjax.balance.pullback import ModalityScores
from mmjax.balance.wrapping import check_scores, init_balancer, wrap_balancer
from mmjax.modalities.imbalance.modulation.score_ratios import average_over_tasks
from mmjax.types import FeatureDropout, Params

Presence = dict[str, Bool[Array, " b"]]


class AmcoState(NamedTuple):
    """State of `amco`.

    Attributes:
      balancer: that of the balancer.
      step: number of completed steps.
      dependent: the modalities on which the model depended in the last step.
    """

    balancer: Any
    step: Int[Array, ""]
    dependent: Bool[Array, " m"]


def amco(balancer: Balancer, *, steps: int, sigma: float = 0.5) -> Balancer:
    """Drops sin(π/2 min(t / steps, 1)) of the features of a dependent modality, at step t.

    A modality is dependent if its score is more than sigma times the sum of all modalities' scores
    in the step before; scores are those of `ogm_ge`. Behind its encoder, a random part of the
    features is set to zero, the same in all the examples, and the others are scaled up as in
    `mmjax.layers.feature_dropout`. The scores are computed before anything is dropped. Examples
    that have no other modality keep all features.

    The method also trains each modality's own loss, so that dependent ones do not get worse: add
    `UnimodalLoss(..., own_head=False)` per modality, which sees all features. The paper could not
    be read for this implementation: the rule is that of the first version of a public benchmark,
    with scores for the shares of the softmax over all modalities' logits.

    Args:
      balancer: any balancer, `modulated` ones that score by "unimodal" included.
      steps: number of steps until all features of a dependent modality are dropped.
      sigma: share of the scores from which on a modality is dependent.

    Source: Zhou et al., "Adaptive mask co-optimization for modal dependence in multimodal
    learning", ICASSP 2023.

    Raises:
      ValueError: if a number is out of range, or the balancer scores or drops otherwise.

    Example:
      >>> from mmjax.balance import equal
      >>> amco(equal(), steps=100).scores
      'unimodal'
    """
    if steps < 1:
        raise ValueError(f"amco: steps is {steps}; it must be at least 1.")
    if not 0 < sigma < 1:
        raise ValueError(f"amco: sigma is {sigma}; it must be between 0 and 1.")
    check_scores("amco", balancer, "unimodal", hides=True)

    def init(
        tasks: Sequence[str], shared: Params, *, modalities: Sequence[str], **options: Any
    ) -> AmcoState:
        inner = init_balancer(balancer, tasks, shared, modalities=modalities, **options)
        return AmcoState(inner, jnp.zeros((), jnp.int32), jnp.zeros(len(modalities), bool))

    def update(losses, pullback, state, *, key, labeled):
        gradient, weights, inner = balancer.update(
            losses, pullback, state.balancer, key=key, labeled=labeled
        )
        dependent = find_dependent_modalities(pullback.scores, sigma)
        # A modality that has no score stays what it was.
        dependent = jnp.where((pullback.scores.counts > 0).any(axis=1), dependent, state.dependent)
        return gradient, weights, AmcoState(inner, state.step + 1, dependent)

    def hide(
        state: AmcoState, present: Presence, *, key: Key[Array, ""], indices: Int[Array, " b"]
    ) -> dict[str, FeatureDropout]:
        rate = jnp.sin(jnp.pi / 2 * jnp.minimum(state.step / steps, 1))
        return _drop_features(jnp.where(state.dependent, rate, 0.0), present, key)

    return wrap_balancer(balancer, init=init, update=update, scores="unimodal", hide=hide)


def find_dependent_modalities(scores: ModalityScores, sigma: float | Array) -> Bool[Array, " m"]:
    """Returns whether each modality has more than a share of the scores; false for a single one.

    Example:
      >>> ones = jnp.ones((2, 1))
      >>> scores = ModalityScores(("a", "b"), jnp.array([[0.6], [0.2]]), ones, ones)
      >>> find_dependent_modalities(scores, 0.5).tolist()
      [True, False]
    """
    means, has_score = average_over_tasks(scores.likelihoods, scores.counts)
    return has_score & (has_score.sum() > 1) & (means > sigma * means.sum())


def _drop_features(
    rates: Float[Array, " m"], present: Presence, key: Key[Array, ""]
) -> dict[str, FeatureDropout]:
    """Drops the features of each modality at its rate, unless an example has no other."""
    names = sorted(present)
    number = jnp.stack([present[m] for m in names]).sum(axis=0)
    dropped = {}
    for i, m in enumerate(names):
        # One key for all examples: they drop the same features, on any number of devices.
        keys = jnp.broadcast_to(jax.random.fold_in(key, i), present[m].shape)
        dropped[m] = FeatureDropout(present[m], jnp.where(number > 1, rates[i], 0.0), keys)
    return dropped
