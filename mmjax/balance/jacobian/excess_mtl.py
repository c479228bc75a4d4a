"""ExcessMTL: weights grow with the part of a loss that training can still remove."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mmjax.balance.base import Balancer
from mmjax.balance.from_functions import rescale_weights
from mmjax.balance.jacobian_rows import keep_unlabeled_rows, weighted_sum, zero_rows
from mmjax.parameters import merge_params
from mmjax.types import Params

_MIN_LOG_WEIGHT = -1e6
"""The smallest log weight: its weight is 0, and unlike minus infinity it has finite sums."""


class ExcessMtlState(NamedTuple):
    """State of `excess_mtl`: sums of squared gradients; first excess risks; logs of weights."""

    squares: PyTree[Array]
    first: Float[Array, " t"]
    log_weights: Float[Array, " t"]


def excess_mtl(
    learning_rate: float = 0.01, *, weigh_heads: bool = True, rescale: bool = False
) -> Balancer:
    """Multiplies each weight by exp(learning_rate * relative excess risk); they sum to 1.

    A task's excess risk is estimated by sum_p g_p^2 / sqrt(h_p), where h_p is the sum of the
    squares of all its gradients so far, this one included; it is relative to its first positive
    value. The step uses the new weights. The state is as large as the Jacobian. A task without
    labels keeps its state; the weights that the step uses sum to 1 over the others.

    Args:
      learning_rate: of the log weights.
      weigh_heads: whether task-specific parameters are weighted too; true by default, since this is
        a weighting of the losses.
      rescale: whether the weights are scaled to sum to the number of labeled tasks, as in the
        authors' code.

    Source: He et al., ICML 2024 (arXiv:2402.02009), algorithm 1; with the division by the first
    value the paper handles tasks of different scales. The code adds 1e-7 to h; here an entry whose
    gradients were all 0 counts 0, so that the estimate is exact at any scale.

    Example:
      In the first step all relative risks are 1, so that the weights stay equal.

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import excess_mtl, to_aggregator
      >>> aggregator = to_aggregator(excess_mtl(), ("a", "b"))
      >>> gradients = jnp.array([[2.0, 0.0], [0.0, 1.0]])
      >>> print(np.asarray(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0]).round(3))
      [1.  0.5]
    """

    def init(tasks: Sequence[str], params: Params) -> ExcessMtlState:
        zeros = jnp.zeros(len(tasks), jnp.float32)
        return ExcessMtlState(zero_rows(params, len(tasks)), zeros, zeros)

    def update(losses, pullback, state, *, key, labeled):
        jacobian = pullback.jacobian()
        squares = jax.tree.map(lambda h, g: h + g.astype(jnp.float32) ** 2, state.squares, jacobian)
        squares = keep_unlabeled_rows(squares, state.squares, labeled)
        risk = _estimate_excess_risk(jacobian, squares)
        first = jnp.where(labeled & (state.first <= 0), risk, state.first)
        # Multiplicative weights: w_t grows by exp(learning rate times relative excess risk).
        growth = learning_rate * risk / jnp.where(first > 0, first, 1.0)
        log_weights = _grow_log_weights(state.log_weights, growth, labeled)
        w = jax.nn.softmax(log_weights, where=labeled)
        w = rescale_weights(w, labeled) if rescale else w
        task_specific = pullback.task_specific(w if weigh_heads else jnp.ones_like(w))
        gradient = merge_params(weighted_sum(jacobian, w), task_specific)
        return gradient, w, ExcessMtlState(squares, first, log_weights)

    return Balancer(init, update)


def _estimate_excess_risk(jacobian: PyTree[Array], squares: PyTree[Array]) -> Float[Array, " t"]:
    """Returns sum_p g_p^2 / sqrt(h_p) per task, for the gradients g and the sums of squares h."""

    def leaf_risk(g: Array, h: Array) -> Float[Array, " t"]:
        # The excess risk g^T H^-1 g with the diagonal estimate H = sqrt(sum of squares of g), as in
        # Adagrad. One division at a time, since g^2 can overflow or underflow.
        terms = jnp.where(h > 0, g * (g / jnp.sqrt(jnp.where(h > 0, h, 1.0))), 0.0)
        return terms.reshape(len(g), -1).sum(1)

    return jnp.stack(jax.tree.leaves(jax.tree.map(leaf_risk, jacobian, squares))).sum(0)


def _grow_log_weights(
    log_weights: Float[Array, " t"], growth: Float[Array, " t"], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Adds the growth to the labeled tasks' log weights and keeps the sum of their weights."""
    # An infinite growth would make the log weights NaN.
    moved = log_weights + jnp.minimum(growth, -_MIN_LOG_WEIGHT)
    # The labeled tasks share what they had before; weights of unlabeled tasks stay.
    total = jax.nn.logsumexp(log_weights, where=labeled)
    moved = moved - jax.nn.logsumexp(moved, where=labeled) + total
    return jnp.where(labeled, jnp.maximum(moved, _MIN_LOG_WEIGHT), log_weights)
