"""Products at full precision, and decompositions of one matrix after another, also under `vmap`.

On CPU, in jaxlib 0.10.2 (no longer in 0.11.2), the kernel of a batch of matrices blocks a thread of
XLA's pool until other threads of that pool have done its parts. As many such kernels at once as the
pool has threads, which are two on two cores, wait for ever.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Devices may round the factors of a matrix product to fewer bits otherwise.
dot = partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)


def unbatched(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a loop in place of a batch under `vmap`. It cannot be differentiated."""
    one_by_one: Callable[..., Any] = jax.custom_batching.sequential_vmap(function)
    return one_by_one


@unbatched
def eigh(x: Float[Array, "d d"]) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    """Eigenvalues in ascending order, and their vectors as columns."""
    values, vectors = jnp.linalg.eigh(x)
    return values, vectors


@unbatched
def svd(x: Float[Array, "d e"]) -> tuple[Float[Array, "d k"], Float[Array, " k"], Array]:
    """U, s, Vᵀ with k = min(d, e)."""
    left, s, right = jnp.linalg.svd(x, full_matrices=False)
    return left, s, right


@jax.custom_jvp
def inverse_root(x: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """L⁻¹ for a positive definite matrix L Lᵀ.

    Its derivative is -Φ(L⁻¹ dX L⁻ᵀ) L⁻¹, where Φ keeps the lower triangle with half the diagonal.
    """
    root: Array = _inverse_root(x)
    return root


@unbatched
def _inverse_root(x: Float[Array, "d d"]) -> Float[Array, "d d"]:
    root = jnp.linalg.cholesky(x)
    return jax.scipy.linalg.solve_triangular(root, jnp.eye(len(x), dtype=x.dtype), lower=True)


@inverse_root.defjvp
def _inverse_root_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    inverse = inverse_root(x)
    inner = dot(dot(inverse, (tangent + tangent.T) / 2), inverse.T)
    half = jnp.tril(inner) - jnp.diag(jnp.diag(inner)) / 2
    return inverse, -dot(half, inverse)
