"""Solvers of small convex problems at fixed shapes, for the methods on Gramians.

All run under jit and vmap, in the precision of their input, and need few iterations of few
operations. A Gramian squares the condition number, so every problem is posed for gradients of unit
length: then the scales of the losses have no influence on its condition.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.kernels.linear_algebra import cho_solve, cholesky, precise_dot


def unit_gram(
    gram: Float[Array, "t t"],
) -> tuple[Float[Array, "t t"], Float[Array, " t"], Bool[Array, " t"]]:
    """Splits a Gramian into (cosines C, norms n, nonzero) with G_ij = n_i C_ij n_j.

    `nonzero` marks the gradients that are not zero. A zero gradient gets norm 1 and a direction of
    its own, orthogonal to all others, so that C has the diagonal 1.

    Example:
      >>> cosines, norms, nonzero = unit_gram(jnp.array([[4.0, 1.0], [1.0, 1.0]]))
      >>> print(cosines[0, 1], norms, nonzero)
      0.5 [2. 1.] [ True  True]
    """
    squares = jnp.diagonal(gram)
    nonzero = squares > 0
    norms = jnp.sqrt(jnp.where(nonzero, squares, 1.0))
    cosines = jnp.where(nonzero[:, None] & nonzero[None, :], gram, 0.0)
    # One division after the other, since the product of two norms can overflow.
    cosines = cosines / norms[:, None] / norms[None, :]
    return jnp.where(jnp.eye(len(gram), dtype=bool), 1.0, cosines), norms, nonzero


class _InteriorPoint(NamedTuple):
    """The state of an interior point method.

    Attributes:
      x: the variables, > 0.
      slack: s, the multipliers of x >= 0; > 0.
      step: number of completed steps.
      searching: whether the search continues.
    """

    x: Float[Array, " t"]
    slack: Float[Array, " t"]
    step: Array
    searching: Bool[Array, ""]


def solve_nonnegative_qp(
    a: Float[Array, "t t"], b: Float[Array, " t"], *, iterations: int = 25
) -> Float[Array, " t"]:
    """Minimizes x^T a x / 2 + b^T x over x >= 0, for a positive semidefinite `a` of diagonal 1.

    A primal-dual interior point method with Mehrotra's predictor and corrector. It follows the
    solutions of the Karush-Kuhn-Tucker conditions, relaxed by mu,

        a x + b - s = 0      stationarity; s are the multipliers of x >= 0
        x_i s_i = mu         complementarity
        x > 0, s > 0

    as mu falls to 0, which usually takes ten steps, whatever the size and the rank. Of several
    solutions it finds the one in their middle, so that equal tasks have equal weights.

    Source: Mehrotra, SIAM Journal on Optimization 1992.

    Example:
      >>> import numpy as np
      >>> print(np.asarray(solve_nonnegative_qp(jnp.eye(2), jnp.array([-2.0, 1.0]))).round(3))
      [2. 0.]
    """
    ridge = newton_ridge(a)

    def step(state: _InteriorPoint) -> _InteriorPoint:
        x, slack = state.x, state.slack
        dual_residual = precise_dot(a, x) + b - slack
        mu = precise_dot(x, slack) / len(x)
        curvature = slack / x
        root = cholesky(a + jnp.diag(curvature + ridge))

        def newton_direction(target):
            # Linearized complementarity gives ds = target - s - s / x dx with target = mu / x;
            # stationarity becomes (a + diag(s / x)) dx = target - s - dual_residual.
            rhs = target - slack - dual_residual
            dx = cho_solve(root, rhs)
            return dx, target - slack - curvature * dx

        # Predictor: the step to mu = 0 shows by how much mu can fall. Corrector: mu falls by the
        # cube of that, and the predictor's second-order error dx ds is compensated.
        dx, ds = newton_direction(jnp.zeros_like(x))
        length = jnp.minimum(max_step(x, dx), max_step(slack, ds))
        mu_predicted = precise_dot(x + length * dx, slack + length * ds) / len(x)
        dx, ds = newton_direction(((mu_predicted / mu) ** 3 * mu - dx * ds) / x)
        length = jnp.minimum(
            1.0, 0.99 * jnp.minimum(max_step(x, dx, jnp.inf), max_step(slack, ds, jnp.inf))
        )
        return _step_if_finite(state, x + length * dx, slack + length * ds, mu > 1e-10)

    start = _InteriorPoint(jnp.ones_like(b), jnp.ones_like(b), jnp.array(0), jnp.array(True))
    end = jax.lax.while_loop(lambda s: s.searching & (s.step < iterations), step, start)
    return end.x


def solve_power_equation(
    a: Float[Array, "t t"], log_p: Float[Array, " t"], power: float, *, iterations: int = 40
) -> Float[Array, " t"]:
    """Solves a x = p x^-power for x > 0, for a positive semidefinite `a` of diagonal 1.

    It is the optimality condition of the convex problem

        minimize x^T a x / 2 - sum_i p_i F(x_i)  over x > 0,  with F'(x) = x^-power

    (F = log for power = 1). Newton's method with damped steps solves the equivalent system

        a x - s = 0
        log s + power log x = log p

    whose second line varies less than powers do. If some convex combination of the
    columns of `a` is zero, the system has no solution, and x grows until a x is lost in rounding.

    The steps keep x and s positive but follow no central path. If `a` is singular and p spans many
    powers of ten, an entry can come so close to 0 that steps shrink, and 40 do not suffice. In
    float64 200 do; in float32 rounding errors of Cholesky factors can also send an entry to 0.

    Args:
      a: the matrix.
      log_p: log p.
      power: a positive number.
      iterations: the largest number of steps; ten are typical.

    Example:
      x = x^-1 4 in the first entry, x = x^-1 in the second.

      >>> import numpy as np
      >>> x = solve_power_equation(jnp.eye(2), jnp.log(jnp.array([4.0, 1.0])), 1.0)
      >>> print(np.asarray(x).round(3))
      [2. 1.]
    """
    ridge = newton_ridge(a)
    # Keeps the problem itself solvable where rounding makes `a` indefinite.
    a = a + 4 * jnp.finfo(a.dtype).eps * jnp.eye(len(a), dtype=a.dtype)

    def step(state: _InteriorPoint) -> _InteriorPoint:
        x, slack = state.x, state.slack
        residual = precise_dot(a, x) - slack
        log_residual = slack * (log_p - jnp.log(slack) - power * jnp.log(x))
        # The second line gives ds = log_residual - power s / x dx; the first becomes
        # (a + diag(power s / x)) dx = log_residual - residual.
        curvature = power * slack / x
        root = cholesky(a + jnp.diag(curvature + ridge))
        dx = cho_solve(root, log_residual - residual)
        ds = log_residual - curvature * dx
        length = jnp.minimum(
            1.0, 0.9 * jnp.minimum(max_step(x, dx, jnp.inf), max_step(slack, ds, jnp.inf))
        )
        moving = jnp.max(jnp.abs(dx / x)) > 1e-6
        return _step_if_finite(state, x + length * dx, slack + length * ds, moving)

    # The solution for a = I.
    first = jnp.exp(log_p / (1 + power))
    start = _InteriorPoint(first, first, jnp.array(0), jnp.array(True))
    end = jax.lax.while_loop(lambda s: s.searching & (s.step < iterations), step, start)
    return end.x


def max_step(x: Float[Array, " t"], dx: Float[Array, " t"], most: float = 1.0) -> Float[Array, ""]:
    """Returns the largest step along dx, up to `most`, that keeps x >= 0."""
    falling = dx < 0
    return jnp.min(jnp.where(falling, -x / jnp.where(falling, dx, -1.0), most), initial=most)


def _step_if_finite(
    state: _InteriorPoint,
    x: Float[Array, " t"],
    slack: Float[Array, " t"],
    searching: Bool[Array, ""],
) -> _InteriorPoint:
    """Accepts the step if it is finite and positive; otherwise ends the search."""
    valid = jnp.isfinite(x).all() & jnp.isfinite(slack).all() & (x > 0).all() & (slack > 0).all()
    return _InteriorPoint(
        jnp.where(valid, x, state.x),
        jnp.where(valid, slack, state.slack),
        state.step + 1,
        searching & valid,
    )


def newton_ridge(a: Float[Array, "t t"]) -> Float[Array, ""]:
    """Returns a ridge that keeps Newton matrices definite despite rounding; not for `a` itself."""
    return 4 * jnp.finfo(a.dtype).eps * jnp.trace(a)
