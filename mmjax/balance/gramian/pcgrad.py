"""PCGrad: conflicting gradients lose the components that conflict."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.balance.base import Balancer, Wrt, from_gram
from mmjax.kernels.linear_algebra import dot


def pcgrad(*, wrt: Wrt = "params", weigh_heads: bool = False, rescale: bool = False) -> Balancer:
    """Each gradient loses, in random order, its components against the others; then the sum.

    All happens in the coefficients of the gradients: no work of the parameters' size.

    Source: Yu et al., NeurIPS 2020 (arXiv:2001.06782), algorithm 1.
    """
    return from_gram(pcgrad_weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


def pcgrad_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """Weights of the tasks' gradients in the sum of the projected gradients."""
    t = len(gram)

    def project(carry, j):
        i, coefficients = carry
        # The component along the ORIGINAL gradient of task j; a zero gradient has none.
        inner = dot(coefficients, gram[j])
        norm = gram[j, j]
        against = (inner < 0) & (norm > 0) & (i != j)
        step = jnp.where(against, inner / jnp.where(norm > 0, norm, 1.0), 0.0)
        return (i, coefficients.at[j].add(-step)), None

    def one(i, order):
        return jax.lax.scan(project, (i, jnp.eye(t, dtype=gram.dtype)[i]), order)[0][1]

    return jax.vmap(one)(jnp.arange(t), random_orders(key, t)).sum(0)


def random_orders(key: Key[Array, ""], tasks: int) -> Int[Array, "t t"]:
    """One random order of all tasks a task."""
    return jax.vmap(lambda k: jax.random.permutation(k, tasks))(jax.random.split(key, tasks))
