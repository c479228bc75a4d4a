"""CAGrad: the direction near the mean gradient that serves best the task it serves worst."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.balance.base import Balancer, Wrt, from_gram
from mmjax.balance.solvers.convex import ridge_of, room, uniform, unit_gram
from mmjax.balance.solvers.spectrum import spectrum
from mmjax.kernels.linear_algebra import dot, lu_factor, lu_solve


def cagrad(
    c: float = 0.5,
    divide: bool = False,
    *,
    wrt: Wrt = "params",
    weigh_heads: bool = False,
    rescale: bool = False,
) -> Balancer:
    """The d of the greatest min_i g_i . d with |d - g_0| <= c |g_0|, g_0 the mean gradient.

    It is d = g_0 + c |g_0| g_w / |g_w|, where w in the simplex minimises
    g_w . g_0 + c |g_0| |g_w|. With c = 0 it is the mean gradient; with c >= 1 no loss rises to
    first order, and its only fixed points are Pareto stationary.

    The length of d - g_0 is held to c |g_0| within one thousandth, whatever the gradients. What a
    Gramian in float32 cannot tell from rounding is left out: where |g_0| is below some 1/500 of the
    mean norm of the gradients, d is g_0, and the weights of unit gradients are never off their mean
    by more than some 500 c |g_0| (1/200 and 200 for 40 tasks).

    Args:
      c: radius of the ball around the mean gradient, in units of its norm; 0 or more.
      divide: whether d is divided by 1 + c^2, as the authors' code does, but not the paper.
        That code also multiplies by the number of tasks; `rescale` comes near to it.
      wrt: see `from_gram`.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Source: Liu et al., NeurIPS 2021 (arXiv:2110.14048), algorithm 1. A gradient of zero counts in
    the mean, and nothing serves its task, so that it has no part in the minimum.

    Raises:
      ValueError: if c is negative.
    """
    if not c >= 0:
        raise ValueError(f"cagrad: c is {c}; it must be 0 or more.")

    def weights(gram, *, key, labeled):
        w = cagrad_weights(gram, key=key, labeled=labeled, c=c)
        return w / (1 + c**2) if divide else w

    return from_gram(weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


CONFLICT = 1e-3
"""By what share of the lengths added up d may be opposed to a gradient before d = 0 is taken."""
TOLERANCE = 1e-3
"""By how much of the square of its radius d may leave the ball, for what rounding hides of it."""


def cagrad_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"], c: float = 0.5
) -> Float[Array, " t"]:
    """Weights of the gradients in d."""
    mean = uniform(labeled).astype(gram.dtype)
    if c == 0:
        return mean
    cosines, norms, nonzero = unit_gram(gram)
    active = labeled & nonzero
    largest = jnp.max(jnp.where(active, norms, 0.0), initial=0.0)
    unit = jnp.where(active, norms / jnp.where(largest > 0, largest, 1.0), 1.0)
    center = jnp.where(active, mean * unit, 0.0)
    # Coordinates in which the unit gradients are the rows of `vectors` = V L^(1/2), for the
    # Gramian V L V^T. There the norm of d - g_0 is that of a vector, which the null space of the
    # Gramian cannot hide, and the coefficients of d - g_0 are bounded.
    values, basis, kept = spectrum(jnp.where(active[:, None] & active[None, :], cosines, 0.0))
    roots = jnp.sqrt(values)
    vectors = jnp.where(active[:, None] & kept[None, :], basis * roots[None, :], 0.0)
    g_0 = dot(center, vectors)
    # Rounding hides up to noise |x|^2 of the square norm of the combination x of unit gradients.
    # What it hides of g_0 beyond the tolerance is taken off the radius, down to 0, and what it
    # hides of d - g_0 off its length.
    noise = gram_noise(cosines)
    square = dot(g_0, g_0)
    hidden = jnp.maximum(noise * dot(center, center) - TOLERANCE * square, 0.0)
    radius = jnp.sqrt(jnp.maximum(square - hidden, 0.0))
    safe = jnp.where(radius > 0, jnp.sqrt(square), 1.0)
    offset = worst_case_offset(vectors, g_0 / safe, unit, c, active)
    coefficients = dot(basis, offset / roots)
    longest = dot(offset, offset) + noise * dot(coefficients, coefficients)
    excess = longest / ((1 + TOLERANCE) * c**2)
    coefficients = coefficients * jnp.minimum(1.0, jax.lax.rsqrt(jnp.maximum(excess, 1e-30)))
    weights = mean + jnp.where(active, radius * coefficients / unit, 0.0)
    if c < 1:
        return weights
    # For c >= 1 the ball holds d = 0, which serves every task better than what rounding can leave
    # of a small d between gradients a factor of 10^12 apart.
    combination = jnp.where(active, weights * unit, 0.0)
    served = jnp.where(active, dot(cosines, combination), 0.0)
    conflict = jnp.min(served) < -CONFLICT * jnp.abs(combination).sum()
    return jnp.where(conflict, 0.0, weights)


def gram_noise(cosines: Float[Array, "t t"]) -> float:
    """Bounds the spectral norm of the round-off in a Gramian of unit gradients.

    In Gramians of 2 to 40 gradients of up to 10^7 parameters, in float32, errors of up to 8 (T = 2)
    and 35 (T = 40) units of the machine's precision were measured.
    """
    return 4 * max(len(cosines), 8) * float(jnp.finfo(cosines.dtype).eps)


class Search(NamedTuple):
    """The state of a search by an interior point method; the symbols are `worst_case_offset`'s.

    Attributes:
      w: weights > 0 that tend to the dual solution.
      slack: s > 0, by how much each task is served better than the worst.
      offset: y, which tends to d - g_0.
      level: how well the worst task is served.
      best: the best of all y, and how well it serves the worst task.
      step: number of completed steps.
      searching: whether the search goes on.
    """

    w: Float[Array, " t"]
    slack: Float[Array, " t"]
    offset: Float[Array, " k"]
    level: Float[Array, ""]
    best: tuple[Float[Array, " k"], Float[Array, ""]]
    step: Array
    searching: Bool[Array, ""]


def worst_case_offset(
    vectors: Float[Array, "t k"],
    center: Float[Array, " k"],
    norms: Float[Array, " t"],
    c: float,
    active: Bool[Array, " t"],
    *,
    iterations: int = 50,
) -> Float[Array, " k"]:
    """The y with |y| <= c for which min_i norm_i a_i . (center + y) is greatest.

    A primal-dual interior point method for the cone program

        maximize level  subject to  A (g + y) - level t = s >= 0,  |y| <= c

    with the unit gradients a_i as rows of A, g the center and t = 1 / norms. With the barrier
    mu (sum log s + log(c^2 - |y|^2)) its Karush-Kuhn-Tucker conditions are

        A (g + y) - level t - s = 0,  w s = mu,  t' w = 1,
        y = c A' w / tau,  tau = (mu + (mu^2 + c^2 |A' w|^2)^(1/2)) / c

    where the last line is the barrier's A' w = 2 mu y / (c^2 - |y|^2), solved for y. As mu falls y
    tends to c A' w / |A' w|. Newton's method with Mehrotra's predictor; ten steps are usual.

    Args:
      vectors: A, in orthonormal coordinates; 0 for gradients that take no part.
      center: g, of length 1.
      norms: the gradients' norms; only their ratios matter.
      c: radius.
      active: which gradients take part.
      iterations: at most so many steps are made.
    """
    t = jnp.where(active, jnp.min(jnp.where(active, norms, jnp.inf), initial=jnp.inf) / norms, 1.0)
    t = jnp.where(jnp.isfinite(t), t, 1.0)
    task_scale = jnp.where(active, t, 0.0)
    cosines = dot(vectors, vectors.T)
    gain = dot(vectors, center)
    ridge = ridge_of(cosines)
    count = jnp.maximum(active.sum(), 1)

    def least_gain(y):
        gains = (gain + dot(vectors, y)) / t
        return jnp.min(jnp.where(active, gains, jnp.inf), initial=jnp.finfo(t.dtype).max)

    def better_of(best, y):
        # Where the optimum is inside the ball, A' w tends to 0 with mu, and rounding to a share of
        # it: then the last y is not the best one. Up to rounding the last is the most exact.
        level = least_gain(y)
        better = level >= best[1] - 1e-5 * jnp.abs(best[1])
        return jnp.where(better, y, best[0]), jnp.where(better, level, best[1])

    def step(now: Search) -> Search:
        w, slack, y, level, best, i, _ = now
        mu = dot(w, slack) / count
        g_w = dot(w, vectors)
        root = jnp.hypot(mu, c * jnp.linalg.norm(g_w))
        tau = (mu + root) / c
        dual_residual = c / tau * g_w - y
        gain_y = dot(vectors, y)
        primal_residual = gain + gain_y - level * t - slack
        curvature = jnp.where(active, slack / w, 1.0)
        # The derivative of tau by w.
        tau_row = c / root * dot(vectors, g_w)
        # dy = dual_residual + c / tau A' dw - y / tau dtau and ds = mu / w - s - s / w dw, put into
        # the linearized first condition, leave a system for dw and the change of the level.
        hessian = cosines * (c / tau) - (gain_y / tau)[:, None] * tau_row[None, :]
        hessian = hessian + jnp.diag(curvature + c / tau * ridge)
        system = jnp.block(
            [[hessian, -task_scale[:, None]], [task_scale[None, :], jnp.zeros((1, 1))]]
        )
        factors = lu_factor(system)

        def direction(target):
            right = target - slack - primal_residual - dot(vectors, dual_residual)
            right = jnp.append(jnp.where(active, right, 0.0), 1.0 - dot(task_scale, w))
            solution = lu_solve(*factors, right)
            dw, dlevel = solution[:-1], solution[-1]
            dy = dual_residual + c / tau * dot(dw, vectors) - y / tau * dot(tau_row, dw)
            return dw, jnp.where(active, target - slack - curvature * dw, 0.0), dy, dlevel

        dw, ds, _, _ = direction(jnp.zeros_like(w))
        length = jnp.minimum(room(w, dw), room(slack, ds))
        ahead = dot(w + length * dw, slack + length * ds) / count
        dw, ds, dy, dlevel = direction(((ahead / mu) ** 3 * mu - dw * ds) / w)
        max_step = jnp.minimum(room(w, dw, jnp.inf), room(slack, ds, jnp.inf))
        length = jnp.minimum(1.0, 0.99 * max_step)
        moved = y + length * dy
        moved = moved * jnp.minimum(1.0, c / jnp.maximum(jnp.linalg.norm(moved), 1e-30))
        rough = jnp.max(jnp.abs(dual_residual)) > 1e-5 * jnp.max(jnp.abs(y))
        searching = ((mu > 1e-10) | rough) & (mu > 1e-14)
        level = level + length * dlevel
        best = better_of(best, moved)
        new = Search(w + length * dw, slack + length * ds, moved, level, best, i + 1, searching)
        finite = jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(new)]).all()
        return jax.tree.map(
            lambda a, b: jnp.where(finite, a, b), new, now._replace(searching=jnp.array(False))
        )

    origin = jnp.zeros_like(center)
    start = Search(
        w=jnp.where(active, 1 / count, 0.0),
        slack=jnp.where(active, 1.0, 0.0),
        offset=origin,
        level=jnp.zeros((), t.dtype),
        best=(origin, least_gain(origin)),
        step=jnp.array(0),
        searching=jnp.array(True),
    )
    end = jax.lax.while_loop(lambda s: s.searching & (s.step < iterations), step, start)
    return end.best[0]
