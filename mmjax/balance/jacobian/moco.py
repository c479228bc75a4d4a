"""MoCo: the common descent direction of running estimates of the gradients."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mmjax.balance.base import Balancer
from mmjax.balance.from_functions import from_jacobian, rescale_weights
from mmjax.balance.jacobian_rows import (
    expand_to_rows,
    gramian,
    keep_unlabeled_rows,
    weighted_sum,
    zero_rows,
)
from mmjax.balance.solvers.simplex import project_simplex, uniform_weights
from mmjax.kernels.linear_algebra import precise_dot
from mmjax.types import Params


class MocoState(NamedTuple):
    """State of `moco`: per task the estimate of its gradient, its weight, and its steps."""

    estimates: PyTree[Array]
    weights: Float[Array, " t"]
    steps: Float[Array, " t"]


def moco(
    beta: float = 0.5,
    gamma: float = 0.1,
    rho: float = 0.0,
    decay: float = 0.5,
    *,
    rescale: bool = False,
) -> Balancer:
    """Sums running estimates Y of the gradients with weights that descend toward those of MGDA.

    The weights follow projected gradient descent for

        minimize |Y^T w|^2 / 2 + rho |w|^2 / 2  over the simplex,

    whose gradient is (Y Y^T + rho I) w. Step k makes, in this order,

        Y <- Y - beta / k^decay (Y - J)
        w <- projection of w - gamma / k^decay (Y Y^T + rho I) w on the simplex

    and the update is Y^T w. Y starts at 0 and w at 1/T. The state is as large as the Jacobian. A
    task without labels keeps its estimate and its weight; the weights that the step uses sum to 1
    over the others.

    Args:
      beta: step size of the estimates.
      gamma: step size of the weights.
      rho: strength of the regularization, which pulls the weights toward each other.
      decay: how fast both step sizes fall; 0 keeps them constant.
      rescale: whether the weights are scaled to sum to the number of labeled tasks.

    Source: Fernando et al., ICLR 2023 (arXiv:2210.12624), algorithm 1. The authors' code, as it
    is in LibMTL, takes a softmax where the paper projects, and gradients scaled to the length of
    their losses; the paper's rule is taken here, without its bound on the estimates' norms.

    Example:
      Y = J; from w = (0.5, 0.5) the gradient (2, 0.5) with step size 0.1 leads to (0.3, 0.45) and,
      projected, to (0.425, 0.575).

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import moco, to_aggregator
      >>> aggregator = to_aggregator(moco(beta=1.0, gamma=0.1), ("a", "b"))
      >>> gradients = jnp.array([[2.0, 0.0], [0.0, 1.0]])
      >>> print(np.asarray(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0]).round(3))
      [0.85  0.575]
    """

    def direction(jacobian, losses, state, *, key, labeled):
        steps = state.steps + labeled
        slowdown = jnp.maximum(steps, 1.0) ** decay
        estimates = _track_gradients(state.estimates, jacobian, beta / slowdown, labeled)
        old, mass = normalize_over_labeled(state.weights, labeled)
        w = _descend_weights(old, gramian(estimates), rho, gamma / slowdown, labeled)
        new = MocoState(estimates, jnp.where(labeled, mass * w, state.weights), steps)
        used = rescale_weights(w, labeled) if rescale else w
        return weighted_sum(estimates, used), used, new

    return from_jacobian(_init_moco, direction)


def _init_moco(tasks: Sequence[str], params: Params) -> MocoState:
    """Returns the state before the first step: Y = 0, w = 1/T."""
    t = len(tasks)
    return MocoState(zero_rows(params, t), jnp.full(t, 1 / t, jnp.float32), jnp.zeros(t))


def _track_gradients(
    estimates: PyTree[Array],
    jacobian: PyTree[Array],
    step_sizes: Float[Array, " t"],
    labeled: Bool[Array, " t"],
) -> PyTree[Array]:
    """Moves the labeled tasks' estimates Y toward their gradients J: Y - step size (Y - J)."""
    moved = jax.tree.map(
        lambda y, g: y - expand_to_rows(step_sizes, y) * (y - g), estimates, jacobian
    )
    return keep_unlabeled_rows(moved, estimates, labeled)


def _descend_weights(
    w: Float[Array, " t"],
    gram: Float[Array, "t t"],
    rho: float,
    step_sizes: Float[Array, " t"],
    labeled: Bool[Array, " t"],
) -> Float[Array, " t"]:
    """Takes one projected step on |Y^T w|^2 / 2 + rho |w|^2 / 2, where Y Y^T = gram."""
    slope = precise_dot(gram, w) + rho * w
    return project_simplex(w - step_sizes * slope, labeled)


def normalize_over_labeled(
    weights: Float[Array, " t"], labeled: Bool[Array, " t"]
) -> tuple[Float[Array, " t"], Float[Array, ""]]:
    """Returns (weights of the labeled tasks, scaled to sum to 1; their sum before)."""
    mass = jnp.where(labeled, weights, 0.0).sum()
    scaled = jnp.where(labeled, weights, 0.0) / jnp.where(mass > 0, mass, 1.0)
    return jnp.where(mass > 0, scaled, uniform_weights(labeled)), mass
