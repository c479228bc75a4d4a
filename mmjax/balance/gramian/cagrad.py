"""CAGrad: the update near the mean gradient with the largest gain of the worst task."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.balance.base import Balancer, Wrt, from_gram
from mmjax.balance.solvers.convex import max_step, newton_ridge, uniform_weights, unit_gram
from mmjax.balance.solvers.spectrum import truncated_eigh
from mmjax.kernels.linear_algebra import lu_factor, lu_solve, precise_dot


def cagrad(
    c: float = 0.5,
    divide: bool = False,
    *,
    wrt: Wrt = "params",
    weigh_heads: bool = False,
    rescale: bool = False,
) -> Balancer:
    """Maximizes min_i g_i . d over the d with |d - g_0| <= c |g_0|, where g_0 is the mean gradient.

    The solution is d = g_0 + c |g_0| g_w / |g_w|, where w in the simplex minimizes
    g_w . g_0 + c |g_0| |g_w| and g_w = sum_i w_i g_i. With c = 0 it is the mean gradient; with
    c >= 1 no loss increases to first order, and the only fixed points are Pareto stationary.

    |d - g_0| exceeds c |g_0| by at most one thousandth, for any gradients. What a Gramian in
    float32 cannot distinguish from rounding is left out: if |g_0| is below about 1/500 of the mean
    norm of the gradients, d is g_0, and the weights of unit gradients differ from their mean by at
    most about 500 c |g_0| (1/200 and 200 for 40 tasks).

    Args:
      c: radius of the ball around the mean gradient, in units of its norm; 0 or more.
      divide: whether d is divided by 1 + c^2, as in the authors' code, but not in the paper.
        That code also multiplies by the number of tasks; `rescale` is similar.
      wrt: see `from_gram`.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Source: Liu et al., NeurIPS 2021 (arXiv:2110.14048), algorithm 1. A zero gradient counts in the
    mean; since no update improves its task, it is left out of the minimum.

    Raises:
      ValueError: if c is negative.

    Example:
      By symmetry g_w is parallel to g_0, so that d = (1 + c) g_0.

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import cagrad, to_aggregator
      >>> aggregator = to_aggregator(cagrad(c=0.5), ("a", "b"))
      >>> gradient, _ = aggregator.update(jnp.eye(2), aggregator.init(jnp.zeros(2)))
      >>> print(np.asarray(gradient).round(3))
      [0.75 0.75]
    """
    if not c >= 0:
        raise ValueError(f"cagrad: c is {c}; it must be 0 or more.")

    def weights(gram, *, key, labeled):
        w = cagrad_weights(gram, key=key, labeled=labeled, c=c)
        return w / (1 + c**2) if divide else w

    return from_gram(weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


_MAX_CONFLICT = 1e-3
"""If -g_i . d exceeds this share of |g_i| sum_j |w_j| |g_j| for a task i, d = 0 is returned."""
_BALL_TOLERANCE = 1e-3
"""Relative error of |d - g_0|^2 that is accepted, to allow for rounding of the Gramian."""


def cagrad_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"], c: float = 0.5
) -> Float[Array, " t"]:
    """Returns the weights of the gradients in d."""
    mean = uniform_weights(labeled).astype(gram.dtype)
    if c == 0:
        return mean
    cosines, norms, nonzero = unit_gram(gram)
    active = labeled & nonzero
    largest = jnp.max(jnp.where(active, norms, 0.0), initial=0.0)
    relative_norms = jnp.where(active, norms / jnp.where(largest > 0, largest, 1.0), 1.0)
    # g_0 = sum_i mean_coefficients_i u_i for the unit gradients u_i, in units of the largest norm.
    mean_coefficients = jnp.where(active, mean * relative_norms, 0.0)
    # Coordinates in which the unit gradients are the rows of A = V L^(1/2), for their Gramian
    # C = V L V^T = A A^T. In them |d - g_0| is the norm of a vector, so that a component in the
    # null space of C cannot hide, and the coefficients of d - g_0 are bounded.
    eigenvalues, basis, significant = truncated_eigh(
        jnp.where(active[:, None] & active[None, :], cosines, 0.0)
    )
    roots = jnp.sqrt(eigenvalues)
    A = jnp.where(active[:, None] & significant[None, :], basis * roots[None, :], 0.0)
    g_0 = precise_dot(mean_coefficients, A)
    # Rounding can hide up to noise |x|^2 of the squared norm of a combination sum_i x_i u_i. What
    # it can hide of g_0 beyond the tolerance is subtracted from the squared radius, which stays 0
    # or more, and what it can hide of d - g_0 shortens d - g_0.
    noise = _bound_gram_noise(cosines)
    g_0_square = precise_dot(g_0, g_0)
    hidden = jnp.maximum(
        noise * precise_dot(mean_coefficients, mean_coefficients) - _BALL_TOLERANCE * g_0_square,
        0.0,
    )
    radius = jnp.sqrt(jnp.maximum(g_0_square - hidden, 0.0))
    g_0_norm = jnp.where(radius > 0, jnp.sqrt(g_0_square), 1.0)
    y = _maximize_worst_gain(A, g_0 / g_0_norm, relative_norms, c, active)
    coefficients = precise_dot(basis, y / roots)
    largest_square = precise_dot(y, y) + noise * precise_dot(coefficients, coefficients)
    excess = largest_square / ((1 + _BALL_TOLERANCE) * c**2)
    coefficients = coefficients * jnp.minimum(1.0, jax.lax.rsqrt(jnp.maximum(excess, 1e-30)))
    weights = mean + jnp.where(active, radius * coefficients / relative_norms, 0.0)
    if c < 1:
        return weights
    # For c >= 1 the ball contains d = 0. It is better for every task than a short d that consists
    # of rounding errors, as between gradients whose norms differ by a factor of 10^12.
    d_coefficients = jnp.where(active, weights * relative_norms, 0.0)
    gains = jnp.where(active, precise_dot(cosines, d_coefficients), 0.0)
    conflict = jnp.min(gains) < -_MAX_CONFLICT * jnp.abs(d_coefficients).sum()
    return jnp.where(conflict, 0.0, weights)


def _bound_gram_noise(cosines: Float[Array, "t t"]) -> float:
    """Bounds the spectral norm of the rounding error in a Gramian of unit gradients.

    In float32 Gramians of 2 to 40 gradients of up to 10^7 parameters, errors of up to 8 (T = 2) and
    35 (T = 40) machine epsilons were measured.
    """
    return 4 * max(len(cosines), 8) * float(jnp.finfo(cosines.dtype).eps)


class _SearchState(NamedTuple):
    """The state of an interior point method; the symbols are those of `_maximize_worst_gain`.

    Attributes:
      w: dual variables > 0; they tend to the paper's weights, up to scale.
      slack: s > 0, the gain of each task beyond the worst gain.
      y: the primal variable, which tends to (d - g_0) / |g_0|.
      level: the worst gain.
      best: the best y so far and its worst gain.
      step: number of completed steps.
      searching: whether the search continues.
    """

    w: Float[Array, " t"]
    slack: Float[Array, " t"]
    y: Float[Array, " k"]
    level: Float[Array, ""]
    best: tuple[Float[Array, " k"], Float[Array, ""]]
    step: Array
    searching: Bool[Array, ""]


def _maximize_worst_gain(
    A: Float[Array, "t k"],
    center: Float[Array, " k"],
    norms: Float[Array, " t"],
    c: float,
    active: Bool[Array, " t"],
    *,
    iterations: int = 50,
) -> Float[Array, " k"]:
    """Returns the y with |y| <= c that maximizes min_i norm_i a_i . (center + y).

    A primal-dual interior point method solves the cone program

        maximize level  subject to  A (g + y) - level r = s >= 0,  |y| <= c

    with the unit gradients a_i as the rows of A, g the center and r_i = 1 / norm_i. Dividing both
    sides of norm_i a_i . (g + y) >= level by norm_i keeps it well scaled. With the barrier
    mu (sum_i log s_i + log(c^2 - |y|^2)) in place of the inequalities, and multipliers w of the
    equation that defines s, the Karush-Kuhn-Tucker conditions are

        A (g + y) - level r - s = 0       primal feasibility
        r . w = 1                         stationarity in the level
        A^T w = 2 mu y / (c^2 - |y|^2)    stationarity in y
        w_i s_i = mu                      stationarity in s: complementarity, relaxed by mu

    The third one solved for y is y = c A^T w / tau, tau = (mu + (mu^2 + c^2 |A^T w|^2)^(1/2)) / c.
    As mu falls to 0, y tends to c A^T w / |A^T w|, the paper's d - g_0 for |g_0| = 1. Newton's
    method with Mehrotra's predictor and corrector usually needs ten steps.

    Args:
      A: the unit gradients in orthonormal coordinates; 0 for inactive tasks.
      center: g, of length 1.
      norms: the norms of the gradients; only their ratios matter.
      c: radius.
      active: which tasks take part.
      iterations: the largest number of steps.
    """
    smallest = jnp.min(jnp.where(active, norms, jnp.inf), initial=jnp.inf)
    r = jnp.where(active, smallest / norms, 1.0)
    # A norm that overflows or an empty mask gives no scale.
    r = jnp.where(jnp.isfinite(r), r, 1.0)
    task_scale = jnp.where(active, r, 0.0)
    cosines = precise_dot(A, A.T)
    center_gain = precise_dot(A, center)
    ridge = newton_ridge(cosines)
    count = jnp.maximum(active.sum(), 1)

    def worst_gain(y):
        gains = (center_gain + precise_dot(A, y)) / r
        return jnp.min(jnp.where(active, gains, jnp.inf), initial=jnp.finfo(r.dtype).max)

    def better_of(best, y):
        # If the optimum is inside the ball, A^T w tends to 0 with mu and loses its relative
        # precision: then the last y is not the best one. Among equally good ones, up to rounding,
        # the last is the most exact.
        level = worst_gain(y)
        better = level >= best[1] - 1e-5 * jnp.abs(best[1])
        return jnp.where(better, y, best[0]), jnp.where(better, level, best[1])

    def step(state: _SearchState) -> _SearchState:
        w, slack, y, level, best, i, _ = state
        mu = precise_dot(w, slack) / count
        g_w = precise_dot(w, A)
        root = jnp.hypot(mu, c * jnp.linalg.norm(g_w))
        tau = (mu + root) / c
        dual_residual = c / tau * g_w - y
        y_gain = precise_dot(A, y)
        primal_residual = center_gain + y_gain - level * r - slack
        curvature = jnp.where(active, slack / w, 1.0)
        tau_gradient = c / root * precise_dot(A, g_w)  # d tau / d w
        # Linearized, the condition on y gives dy = dual_residual + c / tau A^T dw - y / tau dtau,
        # and complementarity gives ds = target - s - s / w dw with target = mu / w. Substituted
        # into primal feasibility, they leave a system of T + 1 equations for dw and dlevel.
        hessian = cosines * (c / tau) - (y_gain / tau)[:, None] * tau_gradient[None, :]
        hessian = hessian + jnp.diag(curvature + c / tau * ridge)
        system = jnp.block(
            [[hessian, -task_scale[:, None]], [task_scale[None, :], jnp.zeros((1, 1))]]
        )
        factors = lu_factor(system)

        def newton_direction(target):
            rhs = target - slack - primal_residual - precise_dot(A, dual_residual)
            rhs = jnp.append(jnp.where(active, rhs, 0.0), 1.0 - precise_dot(task_scale, w))
            solution = lu_solve(*factors, rhs)
            dw, dlevel = solution[:-1], solution[-1]
            dy = (
                dual_residual
                + c / tau * precise_dot(dw, A)
                - y / tau * precise_dot(tau_gradient, dw)
            )
            return dw, jnp.where(active, target - slack - curvature * dw, 0.0), dy, dlevel

        # Predictor: the step to mu = 0 shows by how much mu can fall. Corrector: mu falls by the
        # cube of that, and the predictor's second-order error dw ds is compensated.
        dw, ds, _, _ = newton_direction(jnp.zeros_like(w))
        length = jnp.minimum(max_step(w, dw), max_step(slack, ds))
        mu_predicted = precise_dot(w + length * dw, slack + length * ds) / count
        dw, ds, dy, dlevel = newton_direction(((mu_predicted / mu) ** 3 * mu - dw * ds) / w)
        length = jnp.minimum(max_step(w, dw, jnp.inf), max_step(slack, ds, jnp.inf))
        length = jnp.minimum(1.0, 0.99 * length)
        y_new = y + length * dy
        y_new = y_new * jnp.minimum(1.0, c / jnp.maximum(jnp.linalg.norm(y_new), 1e-30))
        inexact = jnp.max(jnp.abs(dual_residual)) > 1e-5 * jnp.max(jnp.abs(y))
        searching = ((mu > 1e-10) | inexact) & (mu > 1e-14)
        level = level + length * dlevel
        best = better_of(best, y_new)
        new = _SearchState(
            w + length * dw, slack + length * ds, y_new, level, best, i + 1, searching
        )
        # A step that overflows ends the search at the state before it.
        finite = jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(new)]).all()
        return jax.tree.map(
            lambda a, b: jnp.where(finite, a, b), new, state._replace(searching=jnp.array(False))
        )

    origin = jnp.zeros_like(center)
    start = _SearchState(
        w=jnp.where(active, 1 / count, 0.0),
        slack=jnp.where(active, 1.0, 0.0),
        y=origin,
        level=jnp.zeros((), r.dtype),
        best=(origin, worst_gain(origin)),
        step=jnp.array(0),
        searching=jnp.array(True),
    )
    end = jax.lax.while_loop(lambda s: s.searching & (s.step < iterations), step, start)
    return end.best[0]
