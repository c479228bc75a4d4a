"""PCGrad: each gradient is projected so that it conflicts with no other."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.balance.base import Balancer, Wrt
from mmjax.balance.from_functions import from_gram
from mmjax.kernels.linear_algebra import precise_dot


def pcgrad(*, wrt: Wrt = "params", weigh_heads: bool = False, rescale: bool = False) -> Balancer:
    """Sums the gradients after projecting each, in random order, off those that it conflicts with.

    It computes with coefficients of the gradients, so that its cost does not grow with the
    parameters.

    Source: Yu et al., NeurIPS 2020 (arXiv:2001.06782), algorithm 1.

    Example:
      (1, 0) loses its component against (-1, 1) and becomes (0.5, 0.5); (-1, 1) becomes (0, 1).

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import pcgrad, to_aggregator
      >>> aggregator = to_aggregator(pcgrad(), ("a", "b"))
      >>> gradients = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
      >>> print(np.asarray(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0]).round(3))
      [0.5 1.5]
    """
    return from_gram(pcgrad_weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


def pcgrad_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Returns the weights of the tasks' gradients in the sum of the projected gradients."""
    # Gradient i as coefficients of all gradients, g_i = sum_k c_k g_k, with c = e_i at first. In
    # them, g_i . g_j = (c G)_j, and g_i <- g_i - (g_i . g_j) / |g_j|^2 g_j lowers c_j alone.
    t = len(gram)

    def project(carry, j):
        i, coefficients = carry
        # The component along the ORIGINAL gradient of task j; a zero gradient has none.
        inner = precise_dot(coefficients, gram[j])
        square = gram[j, j]
        conflict = (inner < 0) & (square > 0) & (i != j)
        step = jnp.where(conflict, inner / jnp.where(square > 0, square, 1.0), 0.0)
        return (i, coefficients.at[j].add(-step)), None

    def project_gradient(i, order):
        return jax.lax.scan(project, (i, jnp.eye(t, dtype=gram.dtype)[i]), order)[0][1]

    return jax.vmap(project_gradient)(jnp.arange(t), draw_task_orders(key, t)).sum(0)


def draw_task_orders(key: Key[Array, ""], tasks: int) -> Int[Array, "t t"]:
    """Draws one random order of all tasks per task."""
    return jax.vmap(lambda k: jax.random.permutation(k, tasks))(jax.random.split(key, tasks))
