"""Points of the simplex {w >= 0, sum w = 1}: center, projections, shortest combination.

The entries are the tasks of a mask; the others are 0.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.balance.solvers.convex import solve_nonnegative_qp, unit_gram


def uniform_weights(mask: Bool[Array, " t"]) -> Float[Array, " t"]:
    """Returns equal weights with sum 1 on the mask, 0 elsewhere; all 0 if the mask is empty."""
    return mask / jnp.maximum(mask.sum(), 1).astype(float)


def project_simplex(x: Float[Array, " t"], mask: Bool[Array, " t"]) -> Float[Array, " t"]:
    """Projects x on the simplex {w >= 0, sum w = 1} of the entries in the mask; 0 off the mask.

    The optimality conditions of min |w - x|^2 / 2 are w = max(x - theta, 0) and sum w = 1. With
    the k largest entries positive, theta = (their sum - 1) / k; k is the largest number for which
    the k-th largest entry is above theta.

    Source: Held, Wolfe, Crowder, Mathematical Programming 1974.

    Example:
      >>> print(project_simplex(jnp.array([1.0, 0.5, -3.0]), jnp.ones(3, bool)))
      [0.75 0.25 0.  ]
    """
    # A shift changes no projection, and keeps huge numbers from drowning the sum of 1.
    x = x - jnp.where(mask.any(), jnp.max(jnp.where(mask, x, -jnp.inf)), 0.0)
    descending = jnp.sort(jnp.where(mask, x, -jnp.inf), descending=True)
    counts = jnp.arange(1, len(x) + 1)
    excess = jnp.cumsum(jnp.where(descending > -jnp.inf, descending, 0.0)) - 1
    support = jnp.maximum((descending * counts > excess).sum(), 1)
    return jnp.where(mask, jnp.maximum(x - excess[support - 1] / support, 0.0), 0.0)


def min_norm_point(gram: Float[Array, "t t"], mask: Bool[Array, " t"]) -> Float[Array, " t"]:
    """Minimizes w^T G w over w >= 0 with sum w = 1, and w = 0 off the mask.

    The optimality conditions are (G w)_i >= w^T G w, with equality where w_i > 0: no gradient has
    a smaller inner product with the least point than the least point itself.

    The scaled solution x = w / (1 + w^T G w) solves the nonnegative least squares problem
    min |J^T x|^2 + (sum x - 1)^2, which has one solution even if 0 is a mean of gradients. Of
    several solutions w the one in their middle is returned. If a gradient in the mask is zero, all
    weight is on it.

    Example:
      The weights of orthogonal gradients are proportional to 1 / G_ii.

      >>> import numpy as np
      >>> x = min_norm_point(jnp.diag(jnp.array([1.0, 4.0])), jnp.ones(2, bool))
      >>> print(np.asarray(x).round(3))
      [0.8 0.2]
    """
    cosines, norms, nonzero = unit_gram(gram)
    active = mask & nonzero
    smallest = jnp.min(jnp.where(active, norms, jnp.inf), initial=jnp.inf)
    # In the variables z = x / t, with t_i = smallest norm / norm_i, the problem is
    # min z^T (C + t t^T) z / 2 - t^T z. Inactive entries have a cost of 1 and end at 0.
    t = jnp.where(active, jnp.where(active, smallest, 1.0) / norms, 0.0)
    cosines = jnp.where(active[:, None] == active[None, :], cosines, 0.0)
    x = t * solve_nonnegative_qp(cosines + t[:, None] * t[None, :], jnp.where(active, -t, 1.0))
    total = x.sum()
    zero = mask & ~nonzero
    w = jnp.where(total > 0, x / jnp.where(total > 0, total, 1.0), uniform_weights(active))
    return jnp.where(zero.any(), uniform_weights(zero), w)
