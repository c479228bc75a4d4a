"""GradDrop: in every entry only gradients of one sign are kept."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from mmjax.balance.base import Balancer, init_empty_state
from mmjax.balance.from_functions import from_jacobian


def graddrop() -> Balancer:
    """Sums either the positive or the negative entries of the gradients, drawn for each parameter.

    The positive ones are kept with probability P = (1 + sum_t g_t / sum_t |g_t|) / 2, and otherwise
    the negative ones.

    The gradients are those of the shared parameters, already summed over the batch. The paper masks
    the gradients of features, for each example, with signs relative to those of the features, which
    other libraries leave out too. Task-specific parameters keep their gradient, and the weights in
    the log are 1.

    Source: Chen et al., NeurIPS 2020 (arXiv:2010.06711), algorithm 1, with f(p) = p and no leak.

    Example:
      The second entry is 1 or -3, with probabilities 1/4 and 3/4.

      >>> import jax.numpy as jnp
      >>> from mmjax.balance import graddrop, to_aggregator
      >>> aggregator = to_aggregator(graddrop(), ("a", "b"))
      >>> gradients = jnp.array([[2.0, 1.0], [3.0, -3.0]])
      >>> gradient, _ = aggregator.update(gradients, aggregator.init(jnp.zeros(2)))
      >>> print(gradient[0], gradient[1] in (1.0, -3.0))
      5.0 True
    """

    def direction(jacobian, losses, state, *, key, labeled):
        # One draw for all entries: one generator per leaf would take long to compile.
        flat, to_tree = ravel_pytree(jax.tree.map(lambda rows: jnp.float32(rows[0]), jacobian))
        draws = to_tree(jax.random.uniform(key, flat.shape))
        return jax.tree.map(sum_one_sign, jacobian, draws), labeled.astype(jnp.float32), state

    return from_jacobian(init_empty_state, direction)


def sum_one_sign(rows: Array, draw: Array) -> Array:
    """Sums the positive or the negative entries: [t, ...] to [...]; `draw` is in [0, 1)."""
    rows = rows.astype(jnp.float32)
    # The gradient positive sign purity of the paper is P = (1 + sum g / sum |g|) / 2, which is the
    # share of the positive entries in the sum of absolute values.
    positive, negative = jnp.maximum(rows, 0).sum(0), jnp.minimum(rows, 0).sum(0)
    # draw < P = positive / (positive - negative), without a division of 0 by 0.
    return jnp.where(draw * (positive - negative) < positive, positive, negative)
