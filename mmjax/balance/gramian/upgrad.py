"""UPGrad and DualProj: projections onto the directions that no gradient opposes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.balance.base import Balancer, Wrt, from_gram
from mmjax.balance.solvers.convex import nonnegative_qp, uniform, unit_gram
from mmjax.kernels.linear_algebra import dot


def upgrad(
    ridge: float = 0.0, *, wrt: Wrt = "params", weigh_heads: bool = False, rescale: bool = False
) -> Balancer:
    """The mean of the gradients' projections onto {d: no inner product with a gradient is < 0}.

    No loss rises to first order, and a gradient that grows pulls the more.

    Args:
      ridge: what is added to the Gramian's diagonal, in units of its trace. The paper has none;
        its library, TorchJD, adds 1e-4, for the sake of its solver, and so projects a little off.
      wrt: see `from_gram`.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Source: Quinton, Rey, Jacobian Descent, 2024 (arXiv:2406.16232).
    """

    def weights(gram, *, key, labeled):
        return upgrad_weights(ridged(gram, ridge), key=key, labeled=labeled)

    return from_gram(weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


def dualproj(
    ridge: float = 0.0, *, wrt: Wrt = "params", weigh_heads: bool = False, rescale: bool = False
) -> Balancer:
    """The projection of the mean gradient onto {d: no inner product with a gradient is < 0}.

    Args:
      ridge: as in `upgrad`.
      wrt: see `from_gram`.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Source: Lopez-Paz, Ranzato, Gradient Episodic Memory, NeurIPS 2017 (arXiv:1706.08840), for one
    gradient; Quinton, Rey 2024 (arXiv:2406.16232), for the mean.
    """

    def weights(gram, *, key, labeled):
        return dualproj_weights(ridged(gram, ridge), key=key, labeled=labeled)

    return from_gram(weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


def upgrad_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Weights of the gradients in the mean of the projections; 0 or more."""
    cosines, norms, nonzero = unit_gram(gram)
    added = jax.vmap(nonnegative_qp, (None, 0))(cosines, cosines)
    # Nothing is to be added to a zero gradient, whose norm counts as 1: what the solver leaves of
    # it, some 1e-6, would be much for gradients that are small.
    added = jnp.where(nonzero[:, None], added, 0.0)
    shares = jnp.where(labeled, norms, 0.0)
    projections = jnp.eye(len(gram), dtype=gram.dtype) + added
    return dot(shares / jnp.maximum(labeled.sum(), 1), projections) / norms


def dualproj_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Weights of the gradients in the projection of their mean; 0 or more."""
    cosines, norms, nonzero = unit_gram(gram)
    mean = uniform(labeled)
    largest = jnp.max(jnp.where(nonzero, norms, 0.0))
    unit = norms / jnp.where(largest > 0, largest, 1.0)
    added = nonnegative_qp(cosines, jnp.where(nonzero, dot(cosines, mean * unit), 1.0))
    return mean + jnp.where(nonzero, added / unit, 0.0)


def ridged(gram: Float[Array, "t t"], ridge: float) -> Float[Array, "t t"]:
    """The Gramian with a multiple of its trace added to its diagonal."""
    return gram + ridge * jnp.trace(gram) * jnp.eye(len(gram), dtype=gram.dtype)
