"""Small convex problems, solved at fixed shapes: what the methods on Gramians share.

All run under jit and vmap, in the precision of their input, and take few iterations of few
operations. A Gramian squares the condition number, so every problem is posed in unit gradients:
then neither the scale of the losses nor that of one loss against another is left in it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.kernels.linear_algebra import cho_solve, cholesky, dot


def uniform(mask: Bool[Array, " t"]) -> Float[Array, " t"]:
    """Equal weights with sum 1 on the mask, 0 elsewhere; all 0 where the mask is empty."""
    return mask / jnp.maximum(mask.sum(), 1).astype(float)


def unit_gram(
    gram: Float[Array, "t t"],
) -> tuple[Float[Array, "t t"], Float[Array, " t"], Bool[Array, " t"]]:
    """The Gramian of the unit gradients, the norms, and which gradients are not zero.

    A zero gradient is given norm 1 and a direction of its own, at right angles to all others.
    """
    squares = jnp.diagonal(gram)
    nonzero = squares > 0
    norms = jnp.sqrt(jnp.where(nonzero, squares, 1.0))
    cosines = jnp.where(nonzero[:, None] & nonzero[None, :], gram, 0.0)
    cosines = cosines / norms[:, None] / norms[None, :]
    return jnp.where(jnp.eye(len(gram), dtype=bool), 1.0, cosines), norms, nonzero


def project_simplex(x: Float[Array, " t"], mask: Bool[Array, " t"]) -> Float[Array, " t"]:
    """The nearest point with w >= 0 and sum w = 1, of those that are 0 off the mask.

    Source: Held, Wolfe, Crowder, Mathematical Programming 1974.
    """
    # A shift changes no projection, and keeps huge numbers from drowning the sum of 1.
    x = x - jnp.where(mask.any(), jnp.max(jnp.where(mask, x, -jnp.inf)), 0.0)
    descending = jnp.sort(jnp.where(mask, x, -jnp.inf), descending=True)
    counts = jnp.arange(1, len(x) + 1)
    excess = jnp.cumsum(jnp.where(descending > -jnp.inf, descending, 0.0)) - 1
    support = jnp.maximum((descending * counts > excess).sum(), 1)
    return jnp.where(mask, jnp.maximum(x - excess[support - 1] / support, 0.0), 0.0)


def min_norm_point(gram: Float[Array, "t t"], mask: Bool[Array, " t"]) -> Float[Array, " t"]:
    """The w >= 0 with sum w = 1, 0 off the mask, of the least w' gram w.

    With x = w / (1 + w' gram w) it is the least squares problem of x >= 0 for
    [gradients; 1 ... 1]' x = [0; 1], which has one solution even where 0 is a mean of gradients.
    Of several solutions the one in their middle is given. Where a gradient of the mask is zero,
    all weight is on it.
    """
    cosines, norms, nonzero = unit_gram(gram)
    active = mask & nonzero
    smallest = jnp.min(jnp.where(active, norms, jnp.inf), initial=jnp.inf)
    t = jnp.where(active, jnp.where(active, smallest, 1.0) / norms, 0.0)
    cosines = jnp.where(active[:, None] == active[None, :], cosines, 0.0)
    x = t * nonnegative_qp(cosines + t[:, None] * t[None, :], jnp.where(active, -t, 1.0))
    total = x.sum()
    zero = mask & ~nonzero
    w = jnp.where(total > 0, x / jnp.where(total > 0, total, 1.0), uniform(active))
    return jnp.where(zero.any(), uniform(zero), w)


class Interior(NamedTuple):
    """A point inside x >= 0, the multipliers of these bounds, and how the search stands."""

    x: Float[Array, " t"]
    slack: Float[Array, " t"]
    step: Array
    searching: Bool[Array, ""]


def nonnegative_qp(
    a: Float[Array, "t t"], b: Float[Array, " t"], *, iterations: int = 25
) -> Float[Array, " t"]:
    """The x >= 0 of the least x' a x / 2 + b' x, for a positive semidefinite `a` of diagonal 1.

    A primal-dual interior point method: ten iterations are usual, whatever the size and the rank.
    Of several solutions it gives the one in their middle, so that equal tasks have equal weights.

    Source: Mehrotra, SIAM Journal on Optimization 1992.
    """
    ridge = ridge_of(a)

    def step(now: Interior) -> Interior:
        x, slack = now.x, now.slack
        residual = dot(a, x) + b - slack
        gap = dot(x, slack) / len(x)
        curvature = slack / x
        root = cholesky(a + jnp.diag(curvature + ridge))

        def direction(target):
            right = target - slack - residual
            dx = cho_solve(root, right)
            return dx, target - slack - curvature * dx

        dx, ds = direction(jnp.zeros_like(x))
        length = jnp.minimum(room(x, dx), room(slack, ds))
        ahead = dot(x + length * dx, slack + length * ds) / len(x)
        dx, ds = direction(((ahead / gap) ** 3 * gap - dx * ds) / x)
        length = jnp.minimum(
            1.0, 0.99 * jnp.minimum(room(x, dx, jnp.inf), room(slack, ds, jnp.inf))
        )
        return proceed(now, x + length * dx, slack + length * ds, gap > 1e-10)

    start = Interior(jnp.ones_like(b), jnp.ones_like(b), jnp.array(0), jnp.array(True))
    end = jax.lax.while_loop(lambda s: s.searching & (s.step < iterations), step, start)
    return end.x


def power_equation(
    a: Float[Array, "t t"], log_p: Float[Array, " t"], power: float, *, iterations: int = 40
) -> Float[Array, " t"]:
    """The x > 0 with a x = p x^-power, for a positive semidefinite `a` of diagonal 1.

    It is where a convex function, x' a x / 2 less an integral of p x^-power, is least. Found by
    damped Newton steps on a x = s, log s + power log x = log p. Where there is no solution, since
    some mean of the columns of `a` is zero, x grows until a x is lost in rounding.

    The steps keep x and s positive but seek no central path. Where `a` is singular and p ranges
    over many powers of ten, an entry may come so near to 0 that steps shrink to nothing; more
    iterations, or float64, do not help then.

    Args:
      a: the matrix.
      log_p: log p.
      power: a positive number.
      iterations: at most so many steps are taken; ten are usual.
    """
    ridge = ridge_of(a)
    a = a + 4 * jnp.finfo(a.dtype).eps * jnp.eye(len(a), dtype=a.dtype)

    def step(now: Interior) -> Interior:
        x, slack = now.x, now.slack
        residual = dot(a, x) - slack
        error = slack * (log_p - jnp.log(slack) - power * jnp.log(x))
        curvature = power * slack / x
        root = cholesky(a + jnp.diag(curvature + ridge))
        dx = cho_solve(root, error - residual)
        ds = error - curvature * dx
        length = jnp.minimum(1.0, 0.9 * jnp.minimum(room(x, dx, jnp.inf), room(slack, ds, jnp.inf)))
        moved = jnp.max(jnp.abs(dx / x)) > 1e-6
        return proceed(now, x + length * dx, slack + length * ds, moved)

    first = jnp.exp(log_p / (1 + power))
    start = Interior(first, first, jnp.array(0), jnp.array(True))
    end = jax.lax.while_loop(lambda s: s.searching & (s.step < iterations), step, start)
    return end.x


def room(x: Float[Array, " t"], dx: Float[Array, " t"], most: float = 1.0) -> Float[Array, ""]:
    """The largest step along dx, up to `most`, that leaves x >= 0."""
    falling = dx < 0
    return jnp.min(jnp.where(falling, -x / jnp.where(falling, dx, -1.0), most), initial=most)


def proceed(
    now: Interior, x: Float[Array, " t"], slack: Float[Array, " t"], searching: Bool[Array, ""]
) -> Interior:
    """Takes the step if it is finite; otherwise the search is over."""
    finite = jnp.isfinite(x).all() & jnp.isfinite(slack).all() & (x > 0).all() & (slack > 0).all()
    return Interior(
        jnp.where(finite, x, now.x),
        jnp.where(finite, slack, now.slack),
        now.step + 1,
        searching & finite,
    )


def ridge_of(a: Float[Array, "t t"]) -> Float[Array, ""]:
    """What makes `a` definite in spite of rounding; added to a Newton matrix, not to a problem."""
    return 4 * jnp.finfo(a.dtype).eps * jnp.trace(a)
