"""ConFIG, "conflict-free inverse gradients": the update with the same angle to every gradient."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.balance.base import Balancer, Wrt
from mmjax.balance.from_functions import from_gram
from mmjax.balance.solvers.convex import unit_gram
from mmjax.balance.solvers.spectrum import pinv_solve
from mmjax.kernels.linear_algebra import precise_dot


def conflict_free(
    *, wrt: Wrt = "params", weigh_heads: bool = False, rescale: bool = False
) -> Balancer:
    """Takes the direction with equal cosines to all gradients, with their projections as length.

    With the unit gradients as the rows of U, the direction is u = U^+ 1 / |U^+ 1|, which solves
    U u = constant by least squares, and the update is (sum_i g_i . u) u. If the unit gradients are
    linearly independent, its inner products with all gradients are positive. If no direction has
    equal cosines, it is the nearest in least squares; opposed gradients give 0.

    Source: Liu, Chu, Thuerey, ICLR 2025 (arXiv:2408.11104), equations 2 and 3. They compute the
    pseudo-inverse of U; here U^+ 1 = U^T v with C v = 1, from the Gramian C = U U^T.

    Example:
      The direction of orthogonal gradients of lengths 1 and 3 is (1, 1) / sqrt(2), and the sum of
      the projections on it is 4 / sqrt(2).

      >>> import jax.numpy as jnp
      >>> from mmjax.balance import conflict_free, to_aggregator
      >>> aggregator = to_aggregator(conflict_free(), ("a", "b"))
      >>> gradients = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> print(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0].round(3))
      [2. 2.]
    """
    return from_gram(conflict_free_weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


def conflict_free_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Returns the weights of the tasks' gradients in the update."""
    v, cosines, norms = solve_equal_cosines(gram)
    # With d = U^T v: U d = C v and |d|^2 = v^T C v. The update (sum_i g_i . d) d / |d|^2 has the
    # coefficients v (norms . C v) / |d|^2 of the unit gradients.
    inner_products = precise_dot(cosines, v)
    square = precise_dot(v, inner_products)
    length = precise_dot(norms, inner_products) / jnp.where(square > 0, square, 1.0)
    return v * length / norms


def solve_equal_cosines(
    gram: Float[Array, "t t"],
) -> tuple[Float[Array, " t"], Float[Array, "t t"], Float[Array, " t"]]:
    """Returns (v, cosines C, norms) with C v = 1, so that U^T v has equal cosines to all gradients.

    If no v solves it, v is the least-squares solution, and 0 if that is zero up to rounding. A
    zero gradient takes no part.
    """
    cosines, norms, nonzero = unit_gram(gram)
    ones = nonzero.astype(gram.dtype)
    v = pinv_solve(cosines, ones)
    # v^T C 1 = |C C^+ 1|^2 is the part of 1 that the range of C contains.
    possible = precise_dot(v, precise_dot(cosines, ones)) > 1e-8 * ones.sum()
    return jnp.where(possible & nonzero, v, 0.0), cosines, norms
