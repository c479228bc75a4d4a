"""Nash-MTL and FairGrad: the update as the solution of a bargaining game between the tasks."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.balance.base import Balancer, State, Wrt
from mmjax.balance.from_functions import from_gram
from mmjax.balance.solvers.convex import solve_power_equation, unit_gram
from mmjax.kernels.replica_axes import remove_replica_axes
from mmjax.parameters import merge_params
from mmjax.types import Params


def nash(
    every: int = 1, *, wrt: Wrt = "params", weigh_heads: bool = False, rescale: bool = False
) -> Balancer:
    """Maximizes the product of the tasks' gains, prod_i g_i . d, over directions d of one length.

    With d = sum_i w_i g_i the optimality condition is g_i . d = 1 / w_i, or G w = 1 / w with w > 0
    (claim 3.1 of the paper): see `fairgrad` with alpha = 1. The direction does not change with the
    scale of any loss. |d|^2 = w^T G w is the number of tasks, whatever the norms of the gradients,
    so its length does not show the distance to a stationary point. If a mean of the gradients is
    zero, no direction improves all tasks, and d vanishes up to rounding errors.

    Args:
      every: number of steps between updates of the weights; the steps between cost no more than
        with equal weights.
      wrt: see `from_gram`.
      weigh_heads: see `from_gram`. The paper bargains for the shared parameters; the authors'
        code weights the losses, so that heads are weighted too.
      rescale: see `from_gram`.

    Source: Navon et al., ICML 2022 (arXiv:2202.01017). The authors' code solves for the Gramian
    divided by its norm, approximately, by a sequence of convex problems, and clips the gradient of
    the shared parameters to norm 1, similar to `optax.clip_by_global_norm(1.0)`.

    Raises:
      ValueError: if `every` is less than 1.

    Example:
      For orthogonal gradients w_i = 1 / |g_i|, so that d is the sum of the unit gradients.

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import nash, to_aggregator
      >>> aggregator = to_aggregator(nash(), ("a", "b"))
      >>> gradients = jnp.array([[10.0, 0.0], [0.0, 0.1]])
      >>> print(np.asarray(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0]).round(3))
      [1. 1.]
    """
    if every < 1:
        raise ValueError(f"nash: every is {every}; it must be 1 or more.")
    always = from_gram(nash_weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)
    return always if every == 1 else _update_occasionally(always, every, weigh_heads)


def fairgrad(
    alpha: float = 2.0, *, wrt: Wrt = "params", weigh_heads: bool = False, rescale: bool = False
) -> Balancer:
    """Maximizes the alpha-fair utility of the gains g_i . d over directions d of one length.

    The utility is sum_i (g_i . d)^(1 - alpha) / (1 - alpha), with log in place of the power for
    alpha = 1. With d = sum_i w_i g_i its optimality condition is (g_i . d)^(-alpha) = w_i, or
    G w = w^(-1 / alpha) with w > 0.

    If the gradients are linearly dependent and their norms differ by many powers of ten, the solver
    can stall (see `solve_power_equation`): of 200 draws of 2 to 8 dependent gradients with norms a
    factor of up to 10^12 apart, it did once with alpha = 2. The direction is finite then, but its
    gains are far from fair. Other draws with such norms, and all with similar norms, were solved.

    Args:
      alpha: 1 is `nash`; towards 0 the sum of the gains counts, for large values the least gain.
      wrt: see `from_gram`.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Source: Ban, Ji, ICML 2024 (arXiv:2402.15638), whose code solves the equation by least squares,
    or by gradient descent, and has 2 for alpha in most experiments.

    Raises:
      ValueError: if alpha is not positive.

    Example:
      For orthogonal gradients w_i = |g_i|^(-2 alpha / (1 + alpha)), here 8^(-4 / 3) = 1 / 16.

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import fairgrad, to_aggregator
      >>> aggregator = to_aggregator(fairgrad(alpha=2.0), ("a", "b"))
      >>> gradients = jnp.array([[1.0, 0.0], [0.0, 8.0]])
      >>> print(np.asarray(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0]).round(3))
      [1.  0.5]
    """
    if not alpha > 0:
        raise ValueError(f"fairgrad: alpha is {alpha}; it must be positive.")

    def weights(gram, *, key, labeled):
        return fairgrad_weights(gram, key=key, labeled=labeled, alpha=alpha)

    return from_gram(weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


def nash_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Solves G w = 1 / w for w > 0; 0 for zero gradients, whose tasks nothing can improve."""
    return fairgrad_weights(gram, key=key, labeled=labeled, alpha=1.0)


def fairgrad_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"], alpha: float
) -> Float[Array, " t"]:
    """Solves G w = w^(-1 / alpha) for w > 0; 0 for zero gradients."""
    power = 1 / alpha
    cosines, norms, nonzero = unit_gram(gram)
    active = labeled & nonzero
    # With G_ij = n_i C_ij n_j and w = x / n, it is C x = p x^-power with p = n^(power - 1). Scaling
    # p by a constant s scales x by s^(1 / (1 + power)), so p is centered in the solver's range.
    log_p = (power - 1) * jnp.where(active, jnp.log(norms), 0.0)
    mean_log_p = log_p.sum() / jnp.maximum(active.sum(), 1)
    x = solve_power_equation(cosines, jnp.where(active, log_p - mean_log_p, 0.0), power)
    return jnp.where(active, x * jnp.exp(mean_log_p / (1 + power)) / norms, 0.0)


class OccasionalState(NamedTuple):
    """State of `nash` with `every` > 1: steps, current weights, and state of the inner balancer."""

    steps: Int[Array, ""]
    weights: Float[Array, " t"]
    inner: State


def _update_occasionally(balancer: Balancer, every: int, weigh_heads: bool) -> Balancer:
    """Applies the balancer in every `every`-th step, and its last weights in the others.

    A task without labels in a step that updates the weights keeps its weight, initially 1.
    """

    def init(tasks: Sequence[str], params: Params) -> OccasionalState:
        ones = jnp.ones(len(tasks), jnp.float32)
        return OccasionalState(jnp.zeros((), jnp.int32), ones, balancer.init(tasks, params))

    def update(losses, pullback, state, *, key, labeled):
        def update_weights():
            gradient, w, inner = balancer.update(
                losses, pullback, state.inner, key=key, labeled=labeled
            )
            return gradient, jnp.where(labeled, w, state.weights), inner

        def keep_weights():
            w = jnp.where(labeled, state.weights, 0.0)
            task_specific = pullback.task_specific(w if weigh_heads else jnp.ones_like(w))
            return merge_params(pullback.shared(w), task_specific), state.weights, state.inner

        # One branch runs per step, so that the steps between updates need no Jacobian.
        is_due = remove_replica_axes(state.steps) % every == 0
        gradient, w, inner = jax.lax.cond(is_due, update_weights, keep_weights)
        new = OccasionalState(state.steps + 1, w, inner)
        return gradient, jnp.where(labeled, w, 0.0), new

    return Balancer(init, update)
