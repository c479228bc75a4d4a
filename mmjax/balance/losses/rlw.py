"""RLW: random loss weighting."""

import jax
import jax.numpy as jnp

from mmjax.balance.base import Balancer
from mmjax.balance.from_functions import from_losses
from mmjax.balance.losses.stateless import masked_softmax


def rlw(distribution: str = "normal") -> Balancer:
    """Weights the losses by a new draw in each step; weights sum to the number of labeled tasks.

    Args:
      distribution: "normal" for the softmax of normal draws, "dirichlet" for a uniform draw from
        the simplex.

    Raises:
      ValueError: for any other distribution.

    Source: Lin et al., TMLR 2022 (arXiv:2111.10603), "random loss weighting".

    Example:
      >>> import jax.numpy as jnp
      >>> from mmjax.balance import rlw, to_aggregator
      >>> aggregator = to_aggregator(rlw(), ("a", "b"))
      >>> weights, _ = aggregator.update(jnp.eye(2), aggregator.init(jnp.zeros(2)))
      >>> print((weights > 0).all(), weights.sum().round(3))
      True 2.0
    """
    if distribution not in ("normal", "dirichlet"):
        raise ValueError(
            f'rlw: distribution is {distribution!r}; it must be "normal" or "dirichlet".'
        )

    def weights(losses, *, key, labeled):
        # Normalized exponential draws are uniform on the simplex; their logarithm is -Gumbel.
        draw = jax.random.normal if distribution == "normal" else jax.random.gumbel
        return masked_softmax(-draw(key, losses.shape, jnp.float32), labeled) * labeled.sum()

    return from_losses(weights)
