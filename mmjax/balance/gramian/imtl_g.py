"""IMTL-G: an update with equal projections on all gradients."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.balance.base import Balancer, Wrt, from_gram
from mmjax.balance.gramian.conflict_free import equal_cosines


def imtl_g(*, wrt: Wrt = "params", weigh_heads: bool = False, rescale: bool = False) -> Balancer:
    """The update's projections on the unit gradients are equal, and the weights sum to 1.

    Weights can be negative. Where the closed form's sum is negative too, dividing by it turns the
    update around, so that it climbs every loss: that is the published rule, and `conflict_free` is the
    rule with the same direction that never does. Where no update has equal projections other than
    0, as between opposed gradients, the weights are 0. Near that, where the closed form's weights
    nearly cancel in their sum, weights grow up to 8e5, beyond which they are 0 too: the published
    rule has no better bound, and `conflict_free` has the same direction with a length that has one.

    Source: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, equation 6. The paper
    inverts a matrix that is singular for dependent gradients; the pseudo-inverse here is that of
    the cosines between gradients, which equals the paper's rule where that is defined and does not
    depend on the gradients' scales.
    """
    return from_gram(imtl_g_weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


def imtl_g_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Weights proportional to G^+ sqrt(diag G), with the sum 1."""
    v, _, norms = equal_cosines(gram)
    # In units of the smallest norm that counts, since the weights of long gradients are small.
    w = v * (jnp.min(jnp.where(v != 0, norms, jnp.inf)) / norms)
    total = w.sum()
    enough = jnp.abs(total) > 10 * jnp.finfo(w.dtype).eps * jnp.abs(w).sum()
    return jnp.where(enough, w / jnp.where(enough, total, 1.0), 0.0)
