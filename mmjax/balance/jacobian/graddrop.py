"""GradDrop: in every entry only the gradients of one sign survive."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from mmjax.balance.base import Balancer, from_jacobian, no_state


def graddrop() -> Balancer:
    """Sums the positive or the negative entries of the tasks' gradients, drawn entry by entry.

    An entry keeps the positive ones with probability P = (1 + sum_t g_t / sum_t |g_t|) / 2, and
    otherwise the negative ones.

    The entries are those of the gradients over the shared parameters, already summed over the
    batch. The paper masks the gradients of features, example by example, with their signs taken
    relative to the features' own, which other libraries leave out too. Parameters of one task alone
    keep their own gradient, and the weights in the log are 1.

    Source: Chen et al., NeurIPS 2020 (arXiv:2010.06711), algorithm 1, with f(p) = p and no leak.
    """

    def direction(jacobian, losses, state, *, key, labeled):
        # One draw for all entries: a generator a leaf would take long to compile.
        flat, to_tree = ravel_pytree(jax.tree.map(lambda rows: jnp.float32(rows[0]), jacobian))
        draws = to_tree(jax.random.uniform(key, flat.shape))
        return jax.tree.map(one_sign, jacobian, draws), labeled.astype(jnp.float32), state

    return from_jacobian(no_state, direction)


def one_sign(rows: Array, draw: Array) -> Array:
    """[t, ...] to [...]: the sum of the positive or of the negative entries; `draw` in [0, 1)."""
    rows = rows.astype(jnp.float32)
    positive, negative = jnp.maximum(rows, 0).sum(0), jnp.minimum(rows, 0).sum(0)
    # P = positive / (positive - negative), without its 0 / 0.
    return jnp.where(draw * (positive - negative) < positive, positive, negative)
