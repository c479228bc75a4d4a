"""DB-MTL: logarithms balance the losses, and equal norms balance the gradients."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mmjax.balance.base import Balancer
from mmjax.balance.jacobian_rows import (
    expand_to_rows,
    keep_unlabeled_rows,
    row_norms,
    weighted_sum,
    zero_rows,
)
from mmjax.parameters import merge_params
from mmjax.types import Params

_EPSILON = 1e-8
"""Added to a loss before the logarithm."""


class DbMtlState(NamedTuple):
    """State of `db_mtl`: per task the running mean of its gradient of the log loss, and steps."""

    means: PyTree[Array]
    steps: Float[Array, " t"]


def db_mtl(beta: float = 0.9, decay: float = 0.5) -> Balancer:
    """Sums the running means of the gradients of log losses, each scaled to the largest norm.

    In step k, m <- b m + (1 - b) g / loss with b = beta / k^decay; m starts at 0. The update is
    sum_t (max_s |m_s| / |m_t|) m_t. The state is as large as the Jacobian. A task without labels
    keeps its mean and counts no step. Task-specific parameters get the gradient of the log loss.
    The weights in the log are those of the means.

    Args:
      beta: weight of the old mean in the first step.
      decay: how fast this weight falls; 0 keeps it constant.

    Source: Lin et al., 2023 (arXiv:2308.12029), algorithm 1. LibMTL, by its first author, has
    decay = 0 by default.

    Example:
      Both gradients get the norm of the longer, 3.

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import db_mtl, to_aggregator
      >>> aggregator = to_aggregator(db_mtl(beta=0.0), ("a", "b"))
      >>> gradients = jnp.array([[3.0, 0.0], [0.0, 1.0]])
      >>> print(np.asarray(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0]).round(3))
      [3. 3.]
    """
    if not 0 <= beta < 1:
        raise ValueError(f"db_mtl: beta is {beta}; it must be at least 0 and below 1.")

    def init(tasks: Sequence[str], params: Params) -> DbMtlState:
        return DbMtlState(zero_rows(params, len(tasks)), jnp.zeros(len(tasks), jnp.float32))

    def update(losses, pullback, state, *, key, labeled):
        # The derivative of log(L + epsilon): gradients of log losses do not depend on the loss's
        # scale.
        slopes = jnp.where(labeled, 1 / (losses.astype(jnp.float32) + _EPSILON), 0.0)
        steps = state.steps + labeled
        old_weight = beta / jnp.maximum(steps, 1.0) ** decay

        def update_mean(old, row):
            new = row * expand_to_rows(slopes, row)
            # b m + (1 - b) g, as one product with b.
            return new + expand_to_rows(old_weight, row) * (old - new)

        means = jax.tree.map(update_mean, state.means, pullback.jacobian())
        means = keep_unlabeled_rows(means, state.means, labeled)
        # Equal norms: all rows get the length of the longest.
        w = _factors_to_max_norm(jnp.where(labeled, row_norms(means), 0.0))
        gradient = merge_params(weighted_sum(means, w), pullback.task_specific(slopes))
        return gradient, w, DbMtlState(means, steps)

    return Balancer(init, update)


def _factors_to_max_norm(norms: Float[Array, " t"]) -> Float[Array, " t"]:
    """Returns factors that give rows of these norms the largest norm; 0 for rows of zeros."""
    ratios = norms.max() / jnp.where(norms > 0, norms, 1.0)
    # A finite bound, since an infinite factor of a row with zeros is NaN.
    return jnp.where(norms > 0, jnp.minimum(ratios, 1e36), 0.0)
