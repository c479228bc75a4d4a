"""STCH: smooth Tchebycheff scalarization, a smooth maximum of the losses."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmjax.balance.base import Balancer
from mmjax.balance.losses.preference import Preference, from_scalarization
from mmjax.balance.losses.stateless import clip_to_positive, masked_softmax
from mmjax.types import Params


def stch(mu: float = 1.0, preference: Preference = None, ideal: Preference = None) -> Balancer:
    """Minimizes a smooth maximum of the losses: mu log sum exp(preference (loss - ideal) / mu).

    Args:
      mu: smoothness; towards 0 only the largest term counts.
      preference: {task: weight}, scaled to sum to 1; all equal by default.
      ideal: {task: smallest possible loss}; 0 by default.

    Raises:
      ValueError: if `mu` is not positive.

    Source: Lin et al., ICML 2024 (arXiv:2402.19078). The code that accompanies the paper's
    multi-task experiments differs: see `log_stch`.

    Example:
      The weights are preference * softmax(preference * loss / mu); for equal losses half of 1/2.

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import stch, to_aggregator
      >>> aggregator = to_aggregator(stch(), ("a", "b"))
      >>> gradient, _ = aggregator.update(jnp.eye(2), aggregator.init(jnp.zeros(2)))
      >>> print(np.asarray(gradient).round(3))
      [0.25 0.25]
    """
    _check_mu("stch", mu)

    def weights(excess, preference, labeled):
        # The gradient of mu log sum_t exp(p_t (L_t - ideal_t) / mu), the smooth maximum of the
        # weighted distances from the ideal point. As mu falls to 0, only the worst task counts.
        return preference * masked_softmax(preference * excess / mu, labeled)

    return from_scalarization("stch", preference, ideal, weights)


class LogStchState(NamedTuple):
    """State of `log_stch`: completed steps; sums of the losses over the warm-up, their counts."""

    step: Int[Array, ""]
    total: Float[Array, " t"]
    steps: Float[Array, " t"]


def log_stch(mu: float = 1.0, warmup: int = 400) -> Balancer:
    """Minimizes T mu log sum exp(log(loss / nadir) / mu): `stch` as in the code of its paper.

    The nadir is the mean loss over the warm-up, in which the sum of the log losses is minimized.
    The losses must be positive.

    Args:
      mu: smoothness; towards 0 only the loss that fell least counts.
      warmup: steps of the warm-up; in the code four epochs, with the mean over the last one.

    Raises:
      ValueError: if either is not positive.

    Example:
      After the warm-up, equal relative losses have the weights 1 / loss.

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import log_stch, to_aggregator
      >>> aggregator = to_aggregator(log_stch(warmup=1), ("a", "b"))
      >>> state = aggregator.init(jnp.zeros(2))
      >>> for scale in (1.0, 0.5):
      ...     losses = scale * jnp.array([2.0, 8.0])
      ...     weights, state = aggregator.update(jnp.eye(2), state, losses=losses)
      >>> print(np.asarray(weights).round(3))
      [1.   0.25]
    """
    _check_mu("log_stch", mu)
    if warmup < 1:
        raise ValueError(f"log_stch: warmup={warmup} must be at least 1.")

    def init(tasks: Sequence[str], params: Params) -> LogStchState:
        zeros = jnp.zeros(len(tasks))
        return LogStchState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(losses, pullback, state, *, key, labeled):
        warm = state.step < warmup
        seen = labeled & warm
        count = state.steps + seen
        total = state.total + jnp.where(seen, losses, 0)
        # The nadir of a task that had no label in the warm-up is its current loss.
        nadir = jnp.where(count > 0, total / jnp.maximum(count, 1), losses)
        # The smooth maximum of log(L_t / nadir_t); the derivative of log L_t divides its weight by
        # L_t.
        fallen = jnp.log(clip_to_positive(losses)) - jnp.log(clip_to_positive(nadir))
        smooth = masked_softmax(fallen / mu, labeled) * labeled.sum()
        # During the warm-up, all log losses count equally.
        w = jnp.where(warm, labeled, smooth) / clip_to_positive(losses)
        return pullback(w), w, LogStchState(state.step + 1, total, count)

    return Balancer(init, update)


def _check_mu(name: str, mu: float) -> None:
    """Raises ValueError if `mu` is not positive."""
    if not mu > 0:
        raise ValueError(f"{name}: mu={mu} must be positive.")
