"""OPM: drops the features of the dominant modality more often the further it is ahead."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.balance import Balancer
from mmjax.balance.pullback import ModalityScores
from mmjax.balance.wrapping import check_scores, init_balancer, wrap_balancer
from mmjax.modalities.imbalance.modulation.score_ratios import (
    average_over_tasks,
    compare_with_others,
)
from mmjax.types import Params

Presence = dict[str, Bool[Array, " b"]]


class OpmState(NamedTuple):
    """State of `opm`.

    Attributes:
      balancer: that of the balancer.
      rates: the modalities' drop rates in the next step, 0 before the first scores.
    """

    balancer: Any
    rates: Float[Array, " m"]


def opm(
    balancer: Balancer, *, base: float = 0.5, alpha: float = 0.5, chance: float = 0.7
) -> Balancer:
    """Drops modality m at the rate base (1 + alpha tanh((ρ_m - 1)₊)) if ρ_m > 1, else never.

    The rate is capped at 1. An example that drops a modality trains as if it lacked it, from behind
    the encoders on. ρ_m compares scores as `ogm_ge` does; they are those of the step before, since
    in the paper's order every step would run the encoders before it knows what to drop. The scores
    are computed before anything is dropped. The last modality of an example is never dropped. The
    paper scales up what remains; here fusions take a dropped modality as missing, and know how to
    average over the others.

    Args:
      balancer: any balancer, `modulated` ones that score by "unimodal" included.
      base: drop rate of a modality that is barely ahead.
      alpha: how much the rate grows with the advantage.
      chance: share of the steps that drop at all.

    Source: Wei et al., "On-the-fly modulation for balanced multimodal learning", TPAMI 2024
    (arXiv:2410.11582); the rate is that of the authors' benchmark, for two modalities.

    Raises:
      ValueError: if a rate is not between 0 and 1, or the balancer scores or drops otherwise.

    Example:
      >>> from mmjax.balance import equal
      >>> opm(equal()).scores
      'unimodal'
    """
    for name, value in (("base", base), ("chance", chance)):
        if not 0 <= value <= 1:
            raise ValueError(f"opm: {name} is {value}; it must be between 0 and 1.")
    check_scores("opm", balancer, "unimodal", hides=True)

    def init(
        tasks: Sequence[str], shared: Params, *, modalities: Sequence[str], **options: Any
    ) -> OpmState:
        inner = init_balancer(balancer, tasks, shared, modalities=modalities, **options)
        return OpmState(inner, jnp.zeros(len(modalities)))

    def update(losses, pullback, state, *, key, labeled):
        gradient, weights, inner = balancer.update(
            losses, pullback, state.balancer, key=key, labeled=labeled
        )
        rates = _choose_drop_rates(pullback.scores, base, alpha)
        # A modality that has no score keeps its rate.
        rates = jnp.where((pullback.scores.counts > 0).any(axis=1), rates, state.rates)
        return gradient, weights, OpmState(inner, rates)

    def hide(state: OpmState, present: Presence, **options: Any) -> Presence:
        return _drop_modalities(state.rates, present, chance, **options)

    return wrap_balancer(balancer, init=init, update=update, scores="unimodal", hide=hide)


def _choose_drop_rates(
    scores: ModalityScores, base: float | Array, alpha: float | Array
) -> Float[Array, " m"]:
    """Returns base (1 + alpha tanh(ρ_m - 1)), at most 1, for modalities that lead, else 0."""
    ratio = compare_with_others(*average_over_tasks(scores.likelihoods, scores.counts))
    rates = base * (1 + alpha * jnp.tanh(ratio - 1))
    return jnp.where(ratio > 1, jnp.clip(rates, 0, 1), 0.0)


def _drop_modalities(
    rates: Float[Array, " m"],
    present: Presence,
    chance: float | Array,
    *,
    key: Key[Array, ""],
    indices: Int[Array, " b"],
) -> Presence:
    """Drops each modality of an example at its rate, unless the example would lose all."""
    step_key, example_key = jax.random.split(key)
    drops = jax.random.bernoulli(step_key, chance)
    # By the example's index in the batch of all devices, so that their number does not matter.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(example_key, indices)
    draws = jax.vmap(lambda k: jax.random.uniform(k, rates.shape))(keys)
    remains = (draws >= rates[None]) | ~drops
    names = sorted(present)
    visible = {m: present[m] & remains[:, i] for i, m in enumerate(names)}
    any_left = jnp.stack(list(visible.values())).any(axis=0)
    return {m: jnp.where(any_left, visible[m], present[m]) for m in names}
