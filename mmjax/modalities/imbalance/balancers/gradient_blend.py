"""Gradient blending: losses that overfit less weigh more."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmjax.balance import Balancer
from mmjax.modalities.imbalance.balancers.weights_by_name import find_losses
from mmjax.types import Params


class BlendState(NamedTuple):
    """State of `gradient_blend`.

    Attributes:
      weights: the losses' weights in the present super-epoch.
      train: losses on the training split at the last validation.
      validation: losses on the validation split at the last validation.
      validations: number of validations.
      group: the losses that share a sum of weights have the same number; -1 for the others, whose
        weight is 1.
    """

    weights: Float[Array, " t"]
    train: Float[Array, " t"]
    validation: Float[Array, " t"]
    validations: Int[Array, ""]
    group: Int[Array, " t"]


def compute_blend_weights(
    train: Float[Array, "2 k"], validation: Float[Array, "2 k"]
) -> Float[Array, " k"]:
    """Computes ΔG_k / ΔO_k², divided by their sum.

    ΔG_k is how far the validation loss fell, and ΔO_k how far the gap between validation and
    training loss grew, between two points of the training. A loss that did not generalize,
    ΔG_k <= 0, gets weight 0; if none did, all weigh the same. The paper has no rule for ΔO = 0:
    its square is at least 1e-6 here.

    Args:
      train: losses on the training split at the earlier and the later point.
      validation: losses on the validation split.

    Source: Wang, Tran, Feiszli, "What makes training multi-modal classification networks hard?",
    CVPR 2020 (arXiv:1905.12681), equation (6).

    Example:
      The first fell by 1 and its gap grew by 1; the second fell by 1 and its gap grew by 0.5.

      >>> import numpy as np
      >>> train = jnp.array([[3.0, 3.0], [1.0, 1.5]])
      >>> validation = jnp.array([[3.0, 3.0], [2.0, 2.0]])
      >>> print(np.asarray(compute_blend_weights(train, validation)).round(2))
      [0.2 0.8]
    """
    gain = jnp.maximum(validation[0] - validation[1], 0.0)
    gap = (validation - train)[1] - (validation - train)[0]
    rates = gain / jnp.maximum(gap**2, 1e-6)
    total = rates.sum()
    even = jnp.full(rates.shape, 1 / rates.shape[0])
    return jnp.where(total > 0, rates / jnp.where(total > 0, total, 1.0), even)


def gradient_blend(unimodal: Mapping[str, str]) -> Balancer:
    """Weighs a task's loss and its unimodal losses by `compute_blend_weights`, online.

    A super-epoch is the time between two validations, `Experiment.eval_every` epochs. Its weights
    follow from the super-epoch before, whose losses are evaluated on both splits when it ends; the
    losses of a task and of its modalities share a sum of weights of 1. In the first two, which
    have no complete super-epoch before them, they weigh the same. The state holds the weights and
    the losses, so that a resumed run continues with them.

    The paper trains a copy of each unimodal and of the multimodal network through every
    super-epoch to estimate its weights, which takes M + 2 trainings in all; here the losses of the
    one blended training stand for them. For offline blending, give the weights of
    `compute_blend_weights` to `mmjax.balance.static`.

    Args:
      unimodal: {name of a unimodal loss: its task}; see `UnimodalLoss`.

    Source: Wang, Tran, Feiszli, CVPR 2020 (arXiv:1905.12681), algorithms 1 and 2.

    Raises:
      ValueError: if the dictionary is empty.

    Example:
      >>> import numpy as np
      >>> balancer = gradient_blend({"only_a": "digit", "only_b": "digit"})
      >>> state = balancer.init(("digit", "rate", "only_a", "only_b"), {})
      >>> print(np.asarray(state.weights).round(2))
      [0.33 1.   0.33 0.33]
    """
    if not unimodal:
        raise ValueError("gradient_blend needs {name of a unimodal loss: task}; it is empty.")
    tasks_of_groups = sorted(set(unimodal.values()))

    def init(tasks: Sequence[str], shared: Params) -> BlendState:
        find_losses("gradient_blend", [*unimodal, *tasks_of_groups], tasks)
        owners = [unimodal.get(name, name) for name in tasks]
        numbers = [tasks_of_groups.index(x) if x in tasks_of_groups else -1 for x in owners]
        group, zeros = jnp.array(numbers), jnp.zeros(len(tasks))
        weights = jnp.array([1.0 if g < 0 else 1 / numbers.count(g) for g in numbers])
        return BlendState(weights, zeros, zeros, jnp.zeros((), jnp.int32), group)

    def update(losses, pullback, state, *, key, labeled):
        return pullback(state.weights), state.weights, state

    def validate(
        state: BlendState, train: Float[Array, " t"], validation: Float[Array, " t"]
    ) -> BlendState:
        weights = _blend_groups(state, train, validation, len(tasks_of_groups))
        return BlendState(weights, train, validation, state.validations + 1, state.group)

    return Balancer(init, update, validate=validate)


def _blend_groups(
    state: BlendState, train: Float[Array, " t"], validation: Float[Array, " t"], groups: int
) -> Float[Array, " t"]:
    """Returns the weights of the next super-epoch, from the losses at its start and before."""
    weights = jnp.ones_like(state.weights)
    known = jnp.isfinite(train + validation + state.train + state.validation)
    losses = (jnp.stack([state.train, train]), jnp.stack([state.validation, validation]))
    for g in range(groups):
        member = state.group == g
        # A loss without labels, NaN, takes no part.
        weights = jnp.where(member, _blend_members(*losses, member & known), weights)
    # The first validation has no losses before it to compare with.
    return jnp.where(state.validations < 1, state.weights, weights)


def _blend_members(
    train: Float[Array, "2 t"], validation: Float[Array, "2 t"], known: Array
) -> Float[Array, " t"]:
    """Returns the weights of some of the losses, which sum to 1; 0 for the others."""
    # Losses that take no part look as if they had not generalized.
    flat = jnp.where(known[None], train, 0.0), jnp.where(known[None], validation, 0.0)
    blended = jnp.where(known, compute_blend_weights(*flat), 0.0)
    total, even = blended.sum(), known / jnp.maximum(known.sum(), 1)
    return jnp.where(total > 0, blended / jnp.where(total > 0, total, 1.0), even)
