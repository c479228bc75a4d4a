"""Scalarizations of the losses that aim at a preferred point of the Pareto front."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.balance.base import Balancer
from mmjax.balance.losses.stateless import FLOOR, by_task
from mmjax.types import Params

Preference = Mapping[str, float] | None


class Aim(NamedTuple):
    """What a scalarization aims at: how much each task matters, and its ideal loss."""

    preference: Float[Array, " t"]
    ideal: Float[Array, " t"]


def pbi(preference: Preference = None, penalty: float = 5.0, ideal: Preference = None) -> Balancer:
    """Distance from the ideal along the preference, plus the penalty times that across it.

    A task's weight is negative where its loss is too low for the preference.

    Args:
      preference: {task: component}, the direction from the ideal; all equal by default.
      penalty: how strictly the losses are kept in that direction.
      ideal: {task: least loss possible}; 0 by default.

    Source: penalty-based boundary intersection, Zhang and Li, IEEE Transactions on Evolutionary
    Computation 2007, section II C.
    """
    return scalarization(
        "pbi", preference, ideal, lambda excess, p, labeled: pbi_weights(excess, p, penalty)
    )


def cosmos(preference: Preference = None, penalty: float = 2.0) -> Balancer:
    """The preference's weighted sum, less the penalty times its cosine with the losses.

    A task's weight is negative where its loss is too low for the preference.

    Args:
      preference: {task: weight}, scaled to sum 1; all equal by default. The paper draws one a batch
        and feeds it to the model; here it is that of the run.
      penalty: how strictly the losses are kept in proportion to the preference; the paper's for
        MultiMNIST by default.

    Source: Ruchte and Grabocka, ICDM 2021 (arXiv:2103.13392).
    """
    return scalarization(
        "cosmos", preference, None, lambda losses, p, labeled: cosmos_weights(losses, p, penalty)
    )


def scalarization(
    name: str,
    preference: Preference,
    ideal: Preference,
    weights: Callable[..., Float[Array, " t"]],
) -> Balancer:
    """Lifts `weights(losses - ideal, preference, labeled)`, the derivative of a scalarization.

    An unlabelled task has an excess and a preference of 0 there; the preferences sum to 1.
    """

    def init(tasks: Sequence[str], params: Params) -> Aim:
        return aim(name, preference, ideal, tasks)

    def update(losses, pullback, state, *, key, labeled):
        excess = jnp.where(labeled, losses - state.ideal, 0)
        w = weights(excess, among(state.preference, labeled), labeled)
        return pullback(w), w, state

    return Balancer(init, update)


def aim(name: str, preference: Preference, ideal: Preference, tasks: Sequence[str]) -> Aim:
    """The preference and the ideal as arrays.

    Raises:
      ValueError: if they do not fit the tasks, or a preference is not positive.
    """
    wanted = dict.fromkeys(tasks, 1.0) if preference is None else preference
    wrong = {t: p for t, p in wanted.items() if not p > 0}
    if wrong:
        raise ValueError(f"{name}: the preferences {wrong} must be positive.")
    least = dict.fromkeys(tasks, 0.0) if ideal is None else ideal
    return Aim(
        by_task(f"{name}: there are preferences", wanted, tasks),
        by_task(f"{name}: there are ideal losses", least, tasks),
    )


def among(preference: Float[Array, " t"], labeled: Bool[Array, " t"]) -> Float[Array, " t"]:
    """The preferences of the labelled tasks, scaled to sum 1."""
    labeled_only = jnp.where(labeled, preference, 0)
    return labeled_only / jnp.where(labeled.any(), labeled_only.sum(), 1)


def pbi_weights(
    excess: Float[Array, " t"], preference: Float[Array, " t"], penalty: float
) -> Float[Array, " t"]:
    """The derivative of |excess along u| + penalty * |excess across u|, u the preference's unit."""
    u, _ = direction(preference)
    e, _ = direction(excess)
    along = jnp.dot(e, u)
    across, _ = direction(e - along * u)
    return jnp.where(along < 0, -u, u) + penalty * across


def cosmos_weights(
    losses: Float[Array, " t"], preference: Float[Array, " t"], penalty: float
) -> Float[Array, " t"]:
    """The derivative of preference . losses - penalty * cosine(preference, losses)."""
    u, _ = direction(preference)
    e, length = direction(losses)
    return preference - penalty * (u - jnp.dot(u, e) * e) / jnp.maximum(length, FLOOR)


def direction(x: Float[Array, " t"]) -> tuple[Float[Array, " t"], Float[Array, ""]]:
    """A vector's unit, 0 for that of 0, and its length, without overflow."""
    scale = jnp.abs(x).max()
    y = x / jnp.where(scale > 0, scale, 1)
    length = jnp.linalg.norm(y)
    return y / jnp.where(length > 0, length, 1), scale * length
