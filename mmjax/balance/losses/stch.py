"""Smooth Tchebycheff scalarization: the largest loss counts, smoothly."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmjax.balance.base import Balancer
from mmjax.balance.losses.preference import Preference, scalarization
from mmjax.balance.losses.stateless import positive, shares
from mmjax.types import Params


def stch(mu: float = 1.0, preference: Preference = None, ideal: Preference = None) -> Balancer:
    """A smooth maximum of the losses: mu log sum exp(preference (loss - ideal) / mu).

    Args:
      mu: how smooth; towards 0 only the largest counts.
      preference: {task: weight}, scaled to sum 1; all equal by default.
      ideal: {task: least loss possible}; 0 by default.

    Raises:
      ValueError: if `mu` is not positive.

    Source: Lin et al., ICML 2024 (arXiv:2402.19078). The code that accompanies the paper's
    multi-task experiments does otherwise: see `log_stch`.
    """
    check_mu("stch", mu)

    def weights(excess, preference, labeled):
        return preference * shares(preference * excess / mu, labeled)

    return scalarization("stch", preference, ideal, weights)


class LogStchState(NamedTuple):
    """State of `log_stch`: steps made; the losses' sums over the warm-up, and their counts."""

    step: Int[Array, ""]
    total: Float[Array, " t"]
    steps: Float[Array, " t"]


def log_stch(mu: float = 1.0, warmup: int = 400) -> Balancer:
    """`stch` as the paper's code has it: of log(loss / nadir), times the number of tasks.

    The nadir is the mean loss over the warm-up, in which the sum of the log losses is minimised.
    The losses must be positive.

    Args:
      mu: how smooth; towards 0 only the loss that fell least counts.
      warmup: steps of the warm-up; the code's is four epochs, with the mean over the last.

    Raises:
      ValueError: if either is not positive.
    """
    check_mu("log_stch", mu)
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
        # A task that had no label in the warm-up counts as at its nadir.
        nadir = jnp.where(count > 0, total / jnp.maximum(count, 1), losses)
        fallen = jnp.log(positive(losses)) - jnp.log(positive(nadir))
        smooth = shares(fallen / mu, labeled) * labeled.sum()
        w = jnp.where(warm, labeled, smooth) / positive(losses)
        return pullback(w), w, LogStchState(state.step + 1, total, count)

    return Balancer(init, update)


def check_mu(name: str, mu: float) -> None:
    """Refuses a `mu` that is not positive."""
    if not mu > 0:
        raise ValueError(f"{name}: mu={mu} must be positive.")
