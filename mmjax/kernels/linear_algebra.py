"""Products at full precision; decompositions and solutions that are safe under `vmap`.

On CPU they take one matrix after another, on other platforms a batch at once: in jaxlib 0.10.2 (no
longer in 0.11.2), the CPU's kernel of a batch of matrices blocks a thread of XLA's pool until other
threads of that pool have done its parts. As many such kernels at once as the pool has threads,
which are two on two cores, wait for ever.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Devices may round the factors of a matrix product to fewer bits otherwise.
dot = partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)


def unbatched(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of arrays, with a loop in place of a batch under `vmap` on CPU.

    It cannot be differentiated.
    """
    one_by_one = jax.custom_batching.sequential_vmap(function)
    either = jax.custom_batching.custom_vmap(function)

    @either.def_vmap
    def of_batch(size: int, batched: list[bool], *arrays: Array) -> tuple[Any, Any]:
        del size
        axes = [0 if some else None for some in batched]
        loop, batch = jax.vmap(one_by_one, axes), jax.vmap(function, axes)
        found = jax.lax.platform_dependent(*arrays, cpu=loop, default=batch)
        return found, jax.tree.map(lambda _: True, found)

    return either


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


@unbatched
def cholesky(x: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """The lower triangle L of a positive definite matrix L Lᵀ."""
    return jnp.linalg.cholesky(x)


@unbatched
def cho_solve(root: Float[Array, "d d"], right: Float[Array, " d"]) -> Float[Array, " d"]:
    """The x with L Lᵀ x = right."""
    return jax.scipy.linalg.cho_solve((root, True), right)


@unbatched
def lu_factor(x: Float[Array, "d d"]) -> tuple[Float[Array, "d d"], Int[Array, " d"]]:
    """Triangles of a matrix, and the rows that changed places."""
    triangles, rows = jax.scipy.linalg.lu_factor(x)
    return triangles, rows


@unbatched
def lu_solve(
    triangles: Float[Array, "d d"], rows: Int[Array, " d"], right: Float[Array, " d"]
) -> Float[Array, " d"]:
    """The y with x y = right, for the matrix x of `lu_factor`."""
    return jax.scipy.linalg.lu_solve((triangles, rows), right)


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
