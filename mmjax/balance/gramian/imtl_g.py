"""IMTL-G: an update with equal projections on all gradients."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.balance.base import Balancer, Wrt
from mmjax.balance.from_functions import from_gram
from mmjax.balance.gramian.conflict_free import solve_equal_cosines


def imtl_g(*, wrt: Wrt = "params", weigh_heads: bool = False, rescale: bool = False) -> Balancer:
    """Makes the projections of the update on all gradients equal, with weights that sum to 1.

    With d = sum_i w_i g_i it solves d . g_i / |g_i| = constant and sum_i w_i = 1, so that
    w = D^-1 v / sum(D^-1 v) with C v = 1, for the cosines C and the norms D of the gradients.

    Weights can be negative. If the sum of D^-1 v is negative, dividing by it reverses the update,
    which then increases every loss: that is the published rule. `conflict_free` has the same
    direction and never reverses it. If only 0 has equal projections, as between opposed gradients,
    the weights are 0. Close to that, where D^-1 v nearly cancels in its sum, weights grow up to
    8e5, beyond which they are 0 too: the published rule has no better bound; that of
    `conflict_free` is the sum of the gradients' lengths.

    Source: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, equation 6. The paper
    inverts a matrix that is singular for dependent gradients; here it is the pseudo-inverse of the
    cosines, which equals the paper's rule where that is defined and does not depend on the scales
    of the gradients.

    Example:
      The weights of orthogonal gradients of lengths 1 and 3 are proportional to 1 and 1/3.

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import imtl_g, to_aggregator
      >>> aggregator = to_aggregator(imtl_g(), ("a", "b"))
      >>> gradients = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> print(np.asarray(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0]).round(3))
      [0.75 0.75]
    """
    return from_gram(imtl_g_weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


def imtl_g_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Returns weights proportional to D^-1 v, with C v = 1, and with the sum 1."""
    v, _, norms = solve_equal_cosines(gram)
    # In units of the smallest active norm, since the weights of long gradients can underflow.
    w = v * (jnp.min(jnp.where(v != 0, norms, jnp.inf)) / norms)
    # Dividing by a sum that consists of rounding errors would make the weights arbitrary.
    total = w.sum()
    enough = jnp.abs(total) > 10 * jnp.finfo(w.dtype).eps * jnp.abs(w).sum()
    return jnp.where(enough, w / jnp.where(enough, total, 1.0), 0.0)
