"""InfoReg: holds the encoder of the modality that is ahead back while it learns fast."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.balance import Balancer
from mmjax.balance.pullback import ModalityScores
from mmjax.balance.wrapping import check_scores, init_balancer, wrap_balancer
from mmjax.modalities.imbalance.modulation.modulated import (
    find_encoder_modality,
    select_encoders,
)
from mmjax.modalities.imbalance.modulation.score_ratios import average_over_tasks
from mmjax.types import Params


class InfoRegState(NamedTuple):
    """State of `info_reg`.

    Attributes:
      balancer: that of the balancer.
      step: number of completed steps.
      start: the encoders' parameters at the start of this period; None for other parameters.
      traces: mean squared norms of each encoder's gradient in the last periods, the latest last;
        0 for the time before the training.
      total: sum of the squared norms in this period.
    """

    balancer: Any
    step: Int[Array, ""]
    start: Params
    traces: Float[Array, "m periods"]
    total: Float[Array, " m"]


def info_reg(
    balancer: Balancer,
    *,
    steps: int,
    beta: float = 0.95,
    threshold: float = 0.05,
    window: int = 10,
) -> Balancer:
    """Adds alpha_m (θ_m - its value at the start of the period) to encoder m's gradient.

    alpha_m is beta exp(tanh(s_m - the mean of the others' scores)) if modality m is ahead and in
    its prime learning window, else 0; scores are those of `ogm_ge`. So the encoder is drawn back to
    where it was. The squared norm of its gradient stands for the trace of its Fisher information.
    With f_k its mean in period k, 0 before the training, the window lasts as long as the sum of the
    last traces grows by more than a share: f_k - f_{k - window} > threshold times the sum.

    The authors' code also adds the modalities' own losses: `UnimodalLoss(..., own_head=False)`.

    Args:
      balancer: any balancer; balances the tasks first.
      steps: number of steps of a period: those of an epoch in the authors' code.
      beta: strength of the regulation; the authors tune one per modality, 0.1 and 0.95.
      threshold: growth at which a window ends.
      window: number of periods whose traces are summed.

    Source: Huang et al., "Adaptive unimodal regulation for balanced multimodal information
    acquisition", CVPR 2025 (arXiv:2503.18595), for two modalities and one task.

    Raises:
      ValueError: if a number is out of range, or the balancer scores modalities in another way.

    Example:
      >>> from mmjax.balance import equal
      >>> info_reg(equal(), steps=100).scores
      'unimodal'
    """
    _check_settings(balancer, steps, beta, window)

    def init(tasks, shared, *, modalities, params):
        inner = init_balancer(balancer, tasks, shared, modalities=modalities, params=params)
        traces = jnp.zeros((len(modalities), window + 1))
        start, zero = select_encoders(params, modalities), jnp.zeros((), jnp.int32)
        return InfoRegState(inner, zero, start, traces, traces[:, 0])

    def update(losses, pullback, state, *, key, labeled):
        gradient, weights, inner = balancer.update(
            losses, pullback, state.balancer, key=key, labeled=labeled
        )
        names = pullback.scores.modalities
        state = _start_period(state, select_encoders(pullback.params, names), steps)
        growing = is_in_prime_window(state.traces, threshold)
        alphas = jnp.where(growing, _choose_strengths(pullback.scores, beta), 0.0)
        total = state.total + measure_squared_norms(gradient, names)
        gradient = _add_pull(
            gradient, pullback.params, state.start, dict(zip(names, alphas, strict=True))
        )
        new = state._replace(balancer=inner, step=state.step + 1, total=total)
        return gradient, weights, new

    return wrap_balancer(balancer, init=init, update=update, scores="unimodal", params=True)


def _check_settings(balancer: Balancer, steps: int, beta: Any, window: int) -> None:
    """Raises ValueError for settings of `info_reg` that are out of range."""
    if steps < 1 or window < 1:
        raise ValueError(
            f"info_reg: steps is {steps} and window {window}; both must be at least 1."
        )
    if not isinstance(beta, jax.Array) and beta < 0:
        raise ValueError(f"info_reg: beta is {beta}; it must be 0 or more.")
    check_scores("info_reg", balancer, "unimodal")


def measure_squared_norms(gradient: Params, modalities: Sequence[str]) -> Float[Array, " m"]:
    """Returns the squared norm of the gradient of each modality's encoder.

    Example:
      >>> gradient = {"encoders_a": {"w": jnp.array([3.0, 4.0])}, "fusion": {"w": jnp.ones(2)}}
      >>> measure_squared_norms(gradient, ["a"]).tolist()
      [25.0]
    """
    squares = dict.fromkeys(modalities, jnp.zeros(()))
    for path, g in jax.tree.leaves_with_path(gradient):
        modality = find_encoder_modality(path, modalities)
        if modality is not None:
            squares[modality] += jnp.sum(jnp.square(g.astype(jnp.float32)))
    return jnp.stack(list(squares.values()))


def is_in_prime_window(
    traces: Float[Array, "m periods"], threshold: float | Array
) -> Bool[Array, " m"]:
    """Returns whether the sum of the last traces, all but the first, grew by more than a share.

    Example:
      The sum of the last two grew from 4 to 5, and from 6 to 5.

      >>> is_in_prime_window(jnp.array([[2.0, 2.0, 3.0], [3.0, 3.0, 2.0]]), 0.05).tolist()
      [True, False]
    """
    last = traces[:, 1:].sum(axis=1)
    return (last <= 0) | (traces[:, -1] - traces[:, 0] > threshold * last)


def _start_period(state: InfoRegState, encoders: Params, steps: int) -> InfoRegState:
    """Returns the state at the start of a period if the step is its first, else the state."""
    starts = (state.step > 0) & (state.step % steps == 0)
    traces = jnp.concatenate([state.traces[:, 1:], state.total[:, None] / steps], axis=1)
    return state._replace(
        start=jax.tree.map(lambda new, old: jnp.where(starts, new, old), encoders, state.start),
        traces=jnp.where(starts, traces, state.traces),
        total=jnp.where(starts, 0.0, state.total),
    )


def _choose_strengths(scores: ModalityScores, beta: float | Array) -> Float[Array, " m"]:
    """Returns beta exp(tanh(gap to the mean of the others)) for modalities ahead, else 0."""
    means, has_score = average_over_tasks(scores.likelihoods, scores.counts)
    others = has_score.sum() - has_score
    gap = means - (means.sum() - means) / jnp.maximum(others, 1)
    ahead = has_score & (others > 0) & (gap > 0)
    return jnp.where(ahead, beta * jnp.exp(jnp.tanh(gap)), 0.0)


def _add_pull(
    gradient: Params, params: Params, start: Params, strengths: dict[str, Float[Array, ""]]
) -> Params:
    """Adds the pull of each modality's encoder to where it was at the start of the period."""

    def add(path: Any, g: Array, present: Array, origin: Array | None) -> Array:
        if origin is None:
            return g
        modality = find_encoder_modality(path, list(strengths))
        assert modality is not None
        return g + (strengths[modality] * (present - origin)).astype(g.dtype)

    return jax.tree.map_with_path(add, gradient, params, start, is_leaf=lambda x: x is None)
