"""MGDA: the shortest convex combination of the gradients."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.balance.base import Balancer, Wrt, init_empty_state
from mmjax.balance.from_functions import from_stateful_gram
from mmjax.balance.solvers.simplex import min_norm_point

_NORMALIZATIONS = ("none", "l2", "loss", "loss+")


def mgda(
    normalization: str = "none",
    *,
    wrt: Wrt = "params",
    weigh_heads: bool = False,
    rescale: bool = False,
) -> Balancer:
    """Finds the point of least norm in the convex hull of the gradients.

    It is a direction of descent of all losses, or zero if there is none. The weights minimize
    |sum_i w_i g_i|^2 = w^T G w over the simplex; they are divided by the divisors of the gradients
    unless `normalization` is "none".

    Args:
      normalization: what each gradient is divided by first: nothing ("none"), its norm ("l2"), its
        loss ("loss"), or the product of both ("loss+"). Not in the papers but in the code of the
        second, which applies the weights to the losses that were NOT normalized; here the result is
        the least point of the normalized gradients, which is still a direction of descent.
      wrt: see `from_gram`; "features" is what the second paper calls MGDA-UB.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Source: Désidéri, Comptes Rendus Mathématique 2012; Sener, Koltun, NeurIPS 2018
    (arXiv:1810.04650), whose code searches by Frank-Wolfe; here the solution is exact.

    Raises:
      ValueError: if the normalization is unknown.

    Example:
      Between orthogonal gradients the weights are proportional to 1 / |g_i|^2: 0.2 and 0.8.

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import mgda, to_aggregator
      >>> aggregator = to_aggregator(mgda(), ("a", "b"))
      >>> gradients = jnp.array([[2.0, 0.0], [0.0, 1.0]])
      >>> print(np.asarray(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0]).round(3))
      [0.4 0.8]
    """
    if normalization not in _NORMALIZATIONS:
        raise ValueError(
            f"mgda: normalization is {normalization!r}; it must be one of {_NORMALIZATIONS}."
        )

    def weights(gram, losses, state, *, key, labeled):
        divisors = _gradient_divisors(gram, losses, normalization)
        gram = gram / divisors[:, None] / divisors[None, :]
        return mgda_weights(gram, key=key, labeled=labeled) / divisors, state

    return from_stateful_gram(
        init_empty_state, weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale
    )


def mgda_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Returns the weights on the simplex that minimize the norm of the weighted sum."""
    return min_norm_point(gram, labeled)


def _gradient_divisors(
    gram: Float[Array, "t t"], losses: Float[Array, " t"], normalization: str
) -> Float[Array, " t"]:
    """Returns the divisors of the gradients; 1 in place of 0."""
    norms = jnp.sqrt(jnp.diagonal(gram))
    divisors = {
        "none": jnp.ones_like(norms),
        "l2": norms,
        "loss": jnp.abs(losses),
        "loss+": jnp.abs(losses) * norms,
    }[normalization]
    return jnp.where(divisors > 0, divisors, 1.0)
