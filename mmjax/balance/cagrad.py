"""CAGrad: the direction near the mean gradient that serves best the task it serves worst."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.balance.base import Balancer, Wrt, from_gram
from mmjax.balance.solvers import ridge_of, room, uniform, unit_gram
from mmjax.linear_algebra import dot, lu_factor, lu_solve


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


def cagrad_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"], c: float = 0.5
) -> Float[Array, " t"]:
    """Weights of the gradients in d; 0 or more."""
    mean = uniform(labeled).astype(gram.dtype)
    if c == 0:
        return mean
    cosines, norms, nonzero = unit_gram(gram)
    active = labeled & nonzero
    largest = jnp.max(jnp.where(active, norms, 0.0), initial=0.0)
    unit = jnp.where(active, norms / jnp.where(largest > 0, largest, 1.0), 1.0)
    center = jnp.where(active, mean * unit, 0.0)
    # The norm of the mean is lost in rounding below the square root of the machine's precision.
    least = jnp.finfo(gram.dtype).eps * dot(center, center)
    radius = jnp.sqrt(jnp.maximum(dot(center, dot(cosines, center)), least))
    safe = jnp.where(radius > 0, radius, 1.0)
    offset = worst_case_offset(cosines, center / safe, unit, c, active)
    return mean + jnp.where(active, safe * offset / unit, 0.0)


class Search(NamedTuple):
    """The state of a search by an interior point method.

    Attributes:
      w: weights > 0 that tend to the solution.
      slack: by how much each task is served better than the worst, > 0.
      offset: coefficients of d - g_0.
      level: how well the worst task is served.
    """

    w: Float[Array, " t"]
    slack: Float[Array, " t"]
    offset: Float[Array, " t"]
    level: Float[Array, ""]
    step: Array
    searching: Bool[Array, ""]


def worst_case_offset(
    cosines: Float[Array, "t t"],
    center: Float[Array, " t"],
    norms: Float[Array, " t"],
    c: float,
    active: Bool[Array, " t"],
    *,
    iterations: int = 50,
) -> Float[Array, " t"]:
    """Coefficients z of unit gradients for which min_i norm_i u_i . (g_0 + z' u) is greatest.

    A primal-dual interior point method for the cone program with |z' u| <= c, where |g_0| = 1.
    The cone's own variable is eliminated: |g_w| is smoothed by the present gap, and z follows
    c g_w / |g_w| by Newton's method. About ten iterations are usual.

    Args:
      cosines: Gramian of the unit gradients u.
      center: coefficients of g_0.
      norms: the gradients' norms; only their ratios matter.
      c: radius.
      active: which gradients take part.
      iterations: at most so many are made.
    """
    t = jnp.where(active, jnp.min(jnp.where(active, norms, jnp.inf), initial=jnp.inf) / norms, 1.0)
    t = jnp.where(jnp.isfinite(t), t, 1.0)
    cosines = jnp.where(active[:, None] & active[None, :], cosines, 0.0)
    gain = jnp.where(active, dot(cosines, center), 0.0)
    ridge = ridge_of(cosines)
    count = jnp.maximum(active.sum(), 1)

    def norm(x):
        return jnp.sqrt(jnp.maximum(dot(x, dot(cosines, x)), 0.0))

    def step(now: Search) -> Search:
        w, slack, z, level, i, _ = now
        gap = dot(w, slack) / count
        of_w, of_z = dot(cosines, w), dot(cosines, z)
        root = jnp.hypot(gap, c * norm(w))
        tau = (gap + root) / c
        behind = c / tau * w - z
        residual = gain + of_z - level * t - slack
        curvature = jnp.where(active, slack / w, 1.0)
        bend = c / root * of_w
        hessian = cosines * (c / tau) - (of_z / tau)[:, None] * bend[None, :]
        hessian = hessian + jnp.diag(curvature + c / tau * ridge)
        edge = jnp.where(active, t, 0.0)
        system = jnp.block([[hessian, -edge[:, None]], [edge[None, :], jnp.zeros((1, 1))]])
        factors = lu_factor(system)

        def direction(target):
            right = target - slack - residual - dot(cosines, behind)
            right = jnp.append(jnp.where(active, right, 0.0), 1.0 - dot(edge, w))
            solution = lu_solve(*factors, right)
            dw, dlevel = solution[:-1], solution[-1]
            dz = behind + c / tau * dw - z / tau * dot(bend, dw)
            return dw, jnp.where(active, target - slack - curvature * dw, 0.0), dz, dlevel

        dw, ds, _, _ = direction(jnp.zeros_like(w))
        length = jnp.minimum(room(w, dw), room(slack, ds))
        ahead = dot(w + length * dw, slack + length * ds) / count
        dw, ds, dz, dlevel = direction(((ahead / gap) ** 3 * gap - dw * ds) / w)
        free = jnp.minimum(room(w, dw, jnp.inf), room(slack, ds, jnp.inf))
        length = jnp.minimum(1.0, 0.99 * free)
        moved = z + length * dz
        moved = moved * jnp.minimum(1.0, c / jnp.maximum(norm(moved), 1e-30))
        rough = jnp.max(jnp.abs(behind)) > 1e-5 * jnp.max(jnp.abs(z))
        searching = ((gap > 1e-10) | rough) & (gap > 1e-14)
        level = level + length * dlevel
        new = Search(w + length * dw, slack + length * ds, moved, level, i + 1, searching)
        finite = jnp.stack([jnp.isfinite(x).all() for x in new]).all()
        return jax.tree.map(
            lambda a, b: jnp.where(finite, a, b), new, now._replace(searching=jnp.array(False))
        )

    start = Search(
        w=jnp.where(active, 1 / (count * t), 0.0),
        slack=jnp.where(active, 1.0, 0.0),
        offset=jnp.zeros_like(t),
        level=jnp.zeros((), t.dtype),
        step=jnp.array(0),
        searching=jnp.array(True),
    )
    end = jax.lax.while_loop(lambda s: s.searching & (s.step < iterations), step, start)
    return jnp.where(active, end.offset, 0.0)
