"""UPGrad and DualProj: projections onto the directions that conflict with no gradient.

The projection of a vector g on the dual cone {d: J d >= 0} solves

    minimize |d - g|^2 / 2  subject to  J d >= 0

Its Karush-Kuhn-Tucker conditions with multipliers v are d = g + J^T v, v >= 0, J d >= 0 and
v_i g_i . d = 0. So v solves the dual problem: minimize v^T G v / 2 + (J g)^T v over v >= 0.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.balance.base import Balancer, Wrt
from mmjax.balance.from_functions import from_gram
from mmjax.balance.solvers.convex import solve_nonnegative_qp, unit_gram
from mmjax.balance.solvers.simplex import uniform_weights
from mmjax.kernels.linear_algebra import precise_dot


def upgrad(
    ridge: float = 0.0, *, wrt: Wrt = "params", weigh_heads: bool = False, rescale: bool = False
) -> Balancer:
    """Averages the projections of the gradients on {d: no inner product with a gradient is < 0}.

    No loss increases to first order, and a longer gradient has more influence.

    Args:
      ridge: number added to the Gramian's diagonal, in units of its trace. The paper has none; its
        library, TorchJD, adds 1e-4 for its solver, which makes its projections slightly inexact.
      wrt: see `from_gram`.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Source: Quinton, Rey, Jacobian Descent, 2024 (arXiv:2406.16232).

    Example:
      (1, 0) is projected on (0.5, 0.5) and (-1, 1) on (0, 1).

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import to_aggregator, upgrad
      >>> aggregator = to_aggregator(upgrad(), ("a", "b"))
      >>> gradients = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
      >>> print(np.asarray(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0]).round(3))
      [0.25 0.75]
    """

    def weights(gram, *, key, labeled):
        return upgrad_weights(_add_ridge(gram, ridge), key=key, labeled=labeled)

    return from_gram(weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


def dualproj(
    ridge: float = 0.0, *, wrt: Wrt = "params", weigh_heads: bool = False, rescale: bool = False
) -> Balancer:
    """Projects the mean gradient on {d: no inner product with a gradient is < 0}.

    Args:
      ridge: as in `upgrad`.
      wrt: see `from_gram`.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Source: Lopez-Paz, Ranzato, Gradient Episodic Memory, NeurIPS 2017 (arXiv:1706.08840), for one
    gradient; Quinton, Rey 2024 (arXiv:2406.16232), for the mean.

    Example:
      The mean (-1, 0.5) of (1, 1) and (-3, 0) conflicts with (1, 1), and becomes (-0.75, 0.75).

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import dualproj, to_aggregator
      >>> aggregator = to_aggregator(dualproj(), ("a", "b"))
      >>> gradients = jnp.array([[1.0, 1.0], [-3.0, 0.0]])
      >>> print(np.asarray(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0]).round(3))
      [-0.75  0.75]
    """

    def weights(gram, *, key, labeled):
        return dualproj_weights(_add_ridge(gram, ridge), key=key, labeled=labeled)

    return from_gram(weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


def upgrad_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Returns the weights of the gradients in the mean of the projections; 0 or more."""
    cosines, norms, nonzero = unit_gram(gram)
    # Row i holds the multipliers v for g = the unit gradient i, whose J g is row i of the cosines.
    multipliers = jax.vmap(solve_nonnegative_qp, (None, 0))(cosines, cosines)
    # A zero gradient, whose norm counts as 1, gets nothing: what the solver leaves in its row,
    # about 1e-6, would be large beside short gradients.
    multipliers = jnp.where(nonzero[:, None], multipliers, 0.0)
    # The projection of u_i is u_i + sum_j v_ij u_j. That of g_i is |g_i| times as long, since the
    # cone contains all multiples of its vectors.
    lengths = jnp.where(labeled, norms, 0.0)
    projections = jnp.eye(len(gram), dtype=gram.dtype) + multipliers
    return precise_dot(lengths / jnp.maximum(labeled.sum(), 1), projections) / norms


def dualproj_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Returns the weights of the gradients in the projection of their mean; 0 or more."""
    cosines, norms, nonzero = unit_gram(gram)
    mean = uniform_weights(labeled)
    largest = jnp.max(jnp.where(nonzero, norms, 0.0))
    relative_norms = norms / jnp.where(largest > 0, largest, 1.0)
    # J g for the unit gradients as the rows of J and the mean g, in units of the largest norm. A
    # positive entry for a zero gradient keeps its multiplier at 0.
    inner_products = jnp.where(nonzero, precise_dot(cosines, mean * relative_norms), 1.0)
    multipliers = solve_nonnegative_qp(cosines, inner_products)
    return mean + jnp.where(nonzero, multipliers / relative_norms, 0.0)


def _add_ridge(gram: Float[Array, "t t"], ridge: float) -> Float[Array, "t t"]:
    """Adds a multiple of the trace of the Gramian to its diagonal."""
    return gram + ridge * jnp.trace(gram) * jnp.eye(len(gram), dtype=gram.dtype)
