"""Scalarizations of the losses whose minimum is a preferred point of the Pareto front."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.balance.base import Balancer
from mmjax.balance.losses.stateless import MIN_LOSS, order_by_task
from mmjax.types import Params

Preference = Mapping[str, float] | None


class PreferenceState(NamedTuple):
    """State of a scalarization: the preference for each task, and its ideal loss."""

    preference: Float[Array, " t"]
    ideal: Float[Array, " t"]


def pbi(preference: Preference = None, penalty: float = 5.0, ideal: Preference = None) -> Balancer:
    """Minimizes the losses' distance from the ideal along the preference, plus penalty * across it.

    A task's weight is negative if its loss is too low for the preference.

    Args:
      preference: {task: component}, the direction from the ideal; all equal by default.
      penalty: how strictly the losses are kept in that direction.
      ideal: {task: smallest possible loss}; 0 by default.

    Source: penalty-based boundary intersection, Zhang and Li, IEEE Transactions on Evolutionary
    Computation 2007, section II C.

    Example:
      Losses along the preference: the weights are the unit vector of the preference.

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import pbi, to_aggregator
      >>> aggregator = to_aggregator(pbi({"a": 3.0, "b": 4.0}), ("a", "b"))
      >>> state = aggregator.init(jnp.zeros(2))
      >>> gradient, _ = aggregator.update(jnp.eye(2), state, losses=jnp.array([3.0, 4.0]))
      >>> print(np.asarray(gradient).round(3))
      [0.6 0.8]
    """
    return from_scalarization(
        "pbi", preference, ideal, lambda excess, p, labeled: _pbi_weights(excess, p, penalty)
    )


def cosmos(preference: Preference = None, penalty: float = 2.0) -> Balancer:
    """Minimizes preference . losses - penalty * cosine(preference, losses).

    A task's weight is negative if its loss is too low for the preference.

    Args:
      preference: {task: weight}, scaled to sum to 1; all equal by default. The paper draws one per
        batch as an input of the model; here it is fixed.
      penalty: how strictly the losses are kept in proportion to the preference; by default the
        paper's value for MultiMNIST.

    Source: Ruchte and Grabocka, ICDM 2021 (arXiv:2103.13392).

    Example:
      Losses along the preference: the cosine is largest, so that its derivative is 0.

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import cosmos, to_aggregator
      >>> aggregator = to_aggregator(cosmos({"a": 1.0, "b": 3.0}), ("a", "b"))
      >>> state = aggregator.init(jnp.zeros(2))
      >>> gradient, _ = aggregator.update(jnp.eye(2), state, losses=jnp.array([2.0, 6.0]))
      >>> print(np.asarray(gradient).round(3))
      [0.25 0.75]
    """
    return from_scalarization(
        "cosmos", preference, None, lambda losses, p, labeled: _cosmos_weights(losses, p, penalty)
    )


def from_scalarization(
    name: str,
    preference: Preference,
    ideal: Preference,
    weights: Callable[..., Float[Array, " t"]],
) -> Balancer:
    """Lifts `weights(losses - ideal, preference, labeled)`, the derivative of a scalarization.

    For an unlabeled task both arguments are 0; the preferences sum to 1.
    """

    def init(tasks: Sequence[str], params: Params) -> PreferenceState:
        return _init_preference(name, preference, ideal, tasks)

    def update(losses, pullback, state, *, key, labeled):
        excess = jnp.where(labeled, losses - state.ideal, 0)
        w = weights(excess, _normalize_preference(state.preference, labeled), labeled)
        return pullback(w), w, state

    return Balancer(init, update)


def _init_preference(
    name: str, preference: Preference, ideal: Preference, tasks: Sequence[str]
) -> PreferenceState:
    """Returns the preference and the ideal as arrays.

    Raises:
      ValueError: if they do not match the tasks, or a preference is not positive.
    """
    wanted = dict.fromkeys(tasks, 1.0) if preference is None else preference
    wrong = {t: p for t, p in wanted.items() if not p > 0}
    if wrong:
        raise ValueError(f"{name}: the preferences {wrong} must be positive.")
    least = dict.fromkeys(tasks, 0.0) if ideal is None else ideal
    return PreferenceState(
        order_by_task(f"{name}: preferences", wanted, tasks),
        order_by_task(f"{name}: ideal losses", least, tasks),
    )


def _normalize_preference(
    preference: Float[Array, " t"], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Scales the preferences of the labeled tasks to sum to 1; 0 for the others."""
    labeled_only = jnp.where(labeled, preference, 0)
    return labeled_only / jnp.where(labeled.any(), labeled_only.sum(), 1)


def _pbi_weights(
    excess: Float[Array, " t"], preference: Float[Array, " t"], penalty: float
) -> Float[Array, " t"]:
    """Differentiates |excess along u| + penalty * |excess across u|, u the unit preference."""
    u, _ = _unit_and_length(preference)
    e, _ = _unit_and_length(excess)
    along = jnp.dot(e, u)
    across, _ = _unit_and_length(e - along * u)
    return jnp.where(along < 0, -u, u) + penalty * across


def _cosmos_weights(
    losses: Float[Array, " t"], preference: Float[Array, " t"], penalty: float
) -> Float[Array, " t"]:
    """Differentiates preference . losses - penalty * cosine(preference, losses)."""
    u, _ = _unit_and_length(preference)
    e, length = _unit_and_length(losses)
    return preference - penalty * (u - jnp.dot(u, e) * e) / jnp.maximum(length, MIN_LOSS)


def _unit_and_length(x: Float[Array, " t"]) -> tuple[Float[Array, " t"], Float[Array, ""]]:
    """Returns (x / |x|, or 0 for 0; |x|)."""
    # In units of the largest entry, so that the squares cannot overflow.
    scale = jnp.abs(x).max()
    y = x / jnp.where(scale > 0, scale, 1)
    length = jnp.linalg.norm(y)
    return y / jnp.where(length > 0, length, 1), scale * length
