"""MGDA: the least convex combination of the gradients."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.balance.base import Balancer, Wrt, from_stateful_gram, no_state
from mmjax.balance.solvers.convex import min_norm_point

NORMALIZATIONS = ("none", "l2", "loss", "loss+")


def mgda(
    normalization: str = "none",
    *,
    wrt: Wrt = "params",
    weigh_heads: bool = False,
    rescale: bool = False,
) -> Balancer:
    """The point of the least norm in the convex hull of the gradients.

    It is a direction of descent of all losses, or zero where there is none. The weights are 0 or
    more with sum 1 ("none"), or such weights divided by what the gradients were divided by.

    Args:
      normalization: what each gradient is divided by first: "none", its norm ("l2"), its loss
        ("loss"), or the product of both ("loss+"). Not in the papers but in the second's code,
        where the weights then go to the losses that were NOT normalised; here the result is the
        least point of the normalised gradients, which is still a direction of descent.
      wrt: see `from_gram`; "features" is what the second paper calls MGDA-UB.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Source: Désidéri, Comptes Rendus Mathématique 2012; Sener, Koltun, NeurIPS 2018
    (arXiv:1810.04650), whose code searches by Frank-Wolfe; here the solution is exact.

    Raises:
      ValueError: if the normalization is unknown.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"mgda: the normalization {normalization!r} is none of {NORMALIZATIONS}.")

    def weights(gram, losses, state, *, key, labeled):
        divisors = normalizers(gram, losses, normalization)
        gram = gram / divisors[:, None] / divisors[None, :]
        return mgda_weights(gram, key=key, labeled=labeled) / divisors, state

    return from_stateful_gram(no_state, weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


def mgda_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Weights of the gradients, 0 or more with sum 1, of the least norm of their sum."""
    return min_norm_point(gram, labeled)


def normalizers(
    gram: Float[Array, "t t"], losses: Float[Array, " t"], normalization: str
) -> Float[Array, " t"]:
    """What the gradients are divided by; 1 in place of 0."""
    norms = jnp.sqrt(jnp.diagonal(gram))
    by = {
        "none": jnp.ones_like(norms),
        "l2": norms,
        "loss": jnp.abs(losses),
        "loss+": jnp.abs(losses) * norms,
    }[normalization]
    return jnp.where(by > 0, by, 1.0)
