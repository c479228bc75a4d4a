"""Random weights."""

import jax
import jax.numpy as jnp

from mmjax.balance.base import Balancer, from_losses
from mmjax.balance.losses.stateless import shares


def random(distribution: str = "normal") -> Balancer:
    """Weights drawn afresh each step, which sum to the number of labelled tasks.

    Args:
      distribution: "normal" for the softmax of normal draws, "dirichlet" for a uniform draw from
        the simplex.

    Raises:
      ValueError: for any other distribution.

    Source: Lin et al., TMLR 2022 (arXiv:2111.10603), "random loss weighting".
    """
    if distribution not in ("normal", "dirichlet"):
        raise ValueError(f'random: distribution is {distribution!r}, not "normal" or "dirichlet".')

    def weights(losses, *, key, labeled):
        # Normalised exponential draws are uniform on the simplex; their logarithm is -Gumbel.
        draw = jax.random.normal if distribution == "normal" else jax.random.gumbel
        return shares(-draw(key, losses.shape, jnp.float32), labeled) * labeled.sum()

    return from_losses(weights)
