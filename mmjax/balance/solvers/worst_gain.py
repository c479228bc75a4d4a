"""The update in a ball around the mean gradient whose smallest gain is largest, for CAGrad.

A primal-dual interior point method solves the cone program

    maximize level  subject to  A (g + y) - level r = s >= 0,  |y| <= c

with the unit gradients a_i as the rows of A, g the center of the ball and r_i = 1 / norm_i.
Dividing both sides of norm_i a_i . (g + y) >= level by norm_i keeps it well scaled. With the
barrier mu (sum_i log s_i + log(c^2 - |y|^2)) in place of the inequalities, and multipliers w of the
equation that defines s, the Karush-Kuhn-Tucker conditions are

    A (g + y) - level r - s = 0       primal feasibility
    r . w = 1                         stationarity in the level
    A^T w = 2 mu y / (c^2 - |y|^2)    stationarity in y
    w_i s_i = mu                      stationarity in s: complementarity, relaxed by mu

The third one solved for y is y = c A^T w / tau, tau = (mu + (mu^2 + c^2 |A^T w|^2)^(1/2)) / c.
As mu falls to 0, y tends to c A^T w / |A^T w|, the paper's d - g_0 for |g_0| = 1. Newton's
method with Mehrotra's predictor and corrector usually needs ten steps.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.balance.solvers.convex import max_step, newton_ridge
from mmjax.kernels.linear_algebra import lu_factor, lu_solve, precise_dot


def maximize_worst_gain(
    A: Float[Array, "t k"],
    center: Float[Array, " k"],
    norms: Float[Array, " t"],
    c: float,
    active: Bool[Array, " t"],
    *,
    iterations: int = 50,
) -> Float[Array, " k"]:
    """Returns the y with |y| <= c that maximizes min_i norm_i a_i . (center + y).

    Args:
      A: the unit gradients in orthonormal coordinates; 0 for inactive tasks.
      center: g, of length 1.
      norms: the norms of the gradients; only their ratios matter.
      c: radius.
      active: which tasks take part.
      iterations: the largest number of steps.

    Example:
      Of two orthogonal gradients the second gains nothing from g; the best y turns toward it.

      >>> import numpy as np
      >>> y = maximize_worst_gain(
      ...     jnp.eye(2), jnp.array([1.0, 0.0]), jnp.ones(2), 0.5, jnp.ones(2, bool)
      ... )
      >>> print(np.asarray(y).round(3))
      [0.  0.5]
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
    program = _ConeProgram(A, center_gain, r, c, active, count, task_scale, cosines, ridge)
    origin = jnp.zeros_like(center)
    start = _SearchState(
        w=jnp.where(active, 1 / count, 0.0),
        slack=jnp.where(active, 1.0, 0.0),
        y=origin,
        level=jnp.zeros((), r.dtype),
        best=(origin, _compute_worst_gain(program, origin)),
        step=jnp.array(0),
        searching=jnp.array(True),
    )
    end = jax.lax.while_loop(
        lambda s: s.searching & (s.step < iterations), lambda s: _take_step(program, s), start
    )
    return end.best[0]


class _ConeProgram(NamedTuple):
    """The constants of the cone program.

    Attributes:
      A: the unit gradients.
      center_gain: A g.
      r: 1 / norm_i in units of the largest; 1 for inactive tasks.
      c: radius.
      active: which tasks take part.
      tasks: their number, at least 1.
      task_scale: r, but 0 for inactive tasks.
      cosines: A A^T.
      ridge: keeps Newton's system regular despite rounding.
    """

    A: Float[Array, "t k"]
    center_gain: Float[Array, " t"]
    r: Float[Array, " t"]
    c: float
    active: Bool[Array, " t"]
    tasks: Array
    task_scale: Float[Array, " t"]
    cosines: Float[Array, "t t"]
    ridge: Float[Array, ""]


class _SearchState(NamedTuple):
    """The state of the interior point method.

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


class _NewtonSystem(NamedTuple):
    """The Karush-Kuhn-Tucker conditions, linearized at a state.

    Attributes:
      tau: of y = c A^T w / tau.
      dual_residual: of that condition.
      primal_residual: of primal feasibility.
      curvature: s / w; 1 for inactive tasks.
      tau_gradient: d tau / d w.
      factors: the LU factors of the system of T + 1 equations for dw and dlevel.
    """

    tau: Float[Array, ""]
    dual_residual: Float[Array, " k"]
    primal_residual: Float[Array, " t"]
    curvature: Float[Array, " t"]
    tau_gradient: Float[Array, " t"]
    factors: Any


def _take_step(program: _ConeProgram, state: _SearchState) -> _SearchState:
    """Takes one step of Newton's method with Mehrotra's predictor and corrector."""
    w, slack, y, level, best, i, _ = state
    mu = precise_dot(w, slack) / program.tasks
    system = _linearize_conditions(program, state, mu)
    # Predictor: the step to mu = 0 shows by how much mu can fall. Corrector: mu falls by the
    # cube of that, and the predictor's second-order error dw ds is compensated.
    dw, ds, _, _ = _solve_newton_system(program, state, system, jnp.zeros_like(w))
    length = jnp.minimum(max_step(w, dw), max_step(slack, ds))
    mu_predicted = precise_dot(w + length * dw, slack + length * ds) / program.tasks
    target = ((mu_predicted / mu) ** 3 * mu - dw * ds) / w
    dw, ds, dy, dlevel = _solve_newton_system(program, state, system, target)
    length = jnp.minimum(max_step(w, dw, jnp.inf), max_step(slack, ds, jnp.inf))
    length = jnp.minimum(1.0, 0.99 * length)
    y_new = y + length * dy
    # Linearized, the ball's boundary can be crossed; such a y is scaled back to it.
    y_new = y_new * jnp.minimum(1.0, program.c / jnp.maximum(jnp.linalg.norm(y_new), 1e-30))
    inexact = jnp.max(jnp.abs(system.dual_residual)) > 1e-5 * jnp.max(jnp.abs(y))
    searching = ((mu > 1e-10) | inexact) & (mu > 1e-14)
    level = level + length * dlevel
    best = _choose_better(program, best, y_new)
    new = _SearchState(w + length * dw, slack + length * ds, y_new, level, best, i + 1, searching)
    # A step that overflows ends the search at the state before it.
    finite = jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(new)]).all()
    end = state._replace(searching=jnp.array(False))
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, end)


def _linearize_conditions(
    program: _ConeProgram, state: _SearchState, mu: Float[Array, ""]
) -> _NewtonSystem:
    """Linearizes the conditions; see `_solve_newton_system` for the system's right-hand side."""
    A, c, w, y = program.A, program.c, state.w, state.y
    g_w = precise_dot(w, A)
    root = jnp.hypot(mu, c * jnp.linalg.norm(g_w))
    tau = (mu + root) / c
    dual_residual = c / tau * g_w - y
    y_gain = precise_dot(A, y)
    primal_residual = program.center_gain + y_gain - state.level * program.r - state.slack
    curvature = jnp.where(program.active, state.slack / w, 1.0)
    tau_gradient = c / root * precise_dot(A, g_w)
    # Linearized, the condition on y gives dy = dual_residual + c / tau A^T dw - y / tau dtau,
    # and complementarity gives ds = target - s - s / w dw with target = mu / w. Substituted
    # into primal feasibility, they leave a system of T + 1 equations for dw and dlevel.
    hessian = program.cosines * (c / tau) - (y_gain / tau)[:, None] * tau_gradient[None, :]
    hessian = hessian + jnp.diag(curvature + c / tau * program.ridge)
    task_scale = program.task_scale
    system = jnp.block([[hessian, -task_scale[:, None]], [task_scale[None, :], jnp.zeros((1, 1))]])
    factors = lu_factor(system)
    return _NewtonSystem(tau, dual_residual, primal_residual, curvature, tau_gradient, factors)


def _solve_newton_system(
    program: _ConeProgram, state: _SearchState, system: _NewtonSystem, target: Float[Array, " t"]
) -> tuple[Float[Array, " t"], Float[Array, " t"], Float[Array, " k"], Float[Array, ""]]:
    """Returns Newton's direction (dw, ds, dy, dlevel) toward w s = target w."""
    A, active, tau = program.A, program.active, system.tau
    rhs = target - state.slack - system.primal_residual - precise_dot(A, system.dual_residual)
    rhs = jnp.append(jnp.where(active, rhs, 0.0), 1.0 - precise_dot(program.task_scale, state.w))
    solution = lu_solve(*system.factors, rhs)
    dw, dlevel = solution[:-1], solution[-1]
    dy = (
        system.dual_residual
        + program.c / tau * precise_dot(dw, A)
        - state.y / tau * precise_dot(system.tau_gradient, dw)
    )
    ds = jnp.where(active, target - state.slack - system.curvature * dw, 0.0)
    return dw, ds, dy, dlevel


def _compute_worst_gain(program: _ConeProgram, y: Float[Array, " k"]) -> Float[Array, ""]:
    """Returns min_i norm_i a_i . (g + y) over the active tasks, in units of the smallest norm."""
    gains = (program.center_gain + precise_dot(program.A, y)) / program.r
    most = jnp.finfo(program.r.dtype).max
    return jnp.min(jnp.where(program.active, gains, jnp.inf), initial=most)


def _choose_better(
    program: _ConeProgram, best: tuple[Float[Array, " k"], Float[Array, ""]], y: Float[Array, " k"]
) -> tuple[Float[Array, " k"], Float[Array, ""]]:
    """Returns the better of two points with its worst gain.

    If the optimum is inside the ball, A^T w tends to 0 with mu and loses its relative precision:
    then the last y is not the best one. Among equally good ones, up to rounding, the last is the
    most exact.
    """
    level = _compute_worst_gain(program, y)
    better = level >= best[1] - 1e-5 * jnp.abs(best[1])
    return jnp.where(better, y, best[0]), jnp.where(better, level, best[1])
