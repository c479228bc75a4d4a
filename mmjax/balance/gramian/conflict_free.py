"""ConFIG, "conflict-free inverse gradients": the update with the same angle to every gradient."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.balance.base import Balancer, Wrt, from_gram
from mmjax.balance.solvers.convex import unit_gram
from mmjax.balance.solvers.spectrum import pseudo_solve
from mmjax.kernels.linear_algebra import dot


def config(*, wrt: Wrt = "params", weigh_heads: bool = False, rescale: bool = False) -> Balancer:
    """The direction with equal cosines to all gradients, as long as their projections' sum.

    Its inner products with all gradients are positive where their unit vectors are independent. If
    no direction has equal cosines, it is the least-squares one; opposed gradients give 0.

    Source: Liu, Chu, Thuerey, ICLR 2025 (arXiv:2408.11104), equations 2 and 3. Theirs is the
    pseudo-inverse of the unit gradients; the weights are the same, from their Gramian.
    """
    return from_gram(config_weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


def config_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Weights of the tasks' gradients in that direction."""
    v, unit, norms = equal_cosines(gram)
    angles = dot(unit, v)
    square = dot(v, angles)
    # The direction U^T v has the length sqrt(square), so its unit vector takes it twice.
    length = dot(norms, angles) / jnp.where(square > 0, square, 1.0)
    return v * length / norms


def equal_cosines(
    gram: Float[Array, "t t"],
) -> tuple[Float[Array, " t"], Float[Array, "t t"], Float[Array, " t"]]:
    """(coefficients v of the unit gradients with equal projections on them, their Gramian, norms).

    Least squares where there is no such vector; 0 where the best is zero up to round-off. A zero
    gradient takes no part.
    """
    unit, norms, nonzero = unit_gram(gram)
    ones = nonzero.astype(gram.dtype)
    v = pseudo_solve(unit, ones)
    # The share of the vector of ones that some direction has as its projections.
    possible = dot(v, dot(unit, ones)) > 1e-8 * ones.sum()
    return jnp.where(possible & nonzero, v, 0.0), unit, norms
