"""Products at full precision; matrix decompositions and solvers that are safe under `vmap`.

On CPU they process one matrix after another, on other platforms a batch at once. In jaxlib 0.10.2
(no longer in 0.11.2), the CPU's kernel for a batch of matrices blocks a thread of XLA's pool until
other threads of that pool have done its parts. If as many such kernels run at once as the pool has
threads (two on two cores), all of them wait forever. Each function is the plain one of
`jax.numpy.linalg` or `jax.scipy.linalg` under `loop_over_batch_on_cpu`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmjax.kernels.portable import choose_by_platform
from mmjax.kernels.small_arrays import compute_on_each_device

# Devices may round the factors of a matrix product to fewer bits otherwise.
precise_dot = partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)
precise_tensordot = partial(jnp.tensordot, precision=jax.lax.Precision.HIGHEST)


def loop_over_batch_on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function of arrays with a loop in place of a batch under `vmap` on CPU.

    It cannot be differentiated.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> det = loop_over_batch_on_cpu(jnp.linalg.det)
      >>> jax.vmap(det)(jnp.stack([jnp.eye(2), 3 * jnp.eye(2)]))
      Array([1., 9.], dtype=float32)
    """
    one_by_one = jax.custom_batching.sequential_vmap(function)
    either = jax.custom_batching.custom_vmap(function)

    @either.def_vmap
    def of_batch(size: int, batched: list[bool], *arrays: Array) -> tuple[Any, Any]:
        del size
        axes = [0 if is_batched else None for is_batched in batched]
        loop, batch = jax.vmap(one_by_one, axes), jax.vmap(function, axes)
        results = choose_by_platform(*arrays, cpu=loop, plain=batch)
        return results, jax.tree.map(lambda _: True, results)

    return compute_on_each_device(either)


@loop_over_batch_on_cpu
def eigh(x: Float[Array, "d d"]) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    """Computes the eigenvalues in ascending order, and the eigenvectors as columns."""
    values, vectors = jnp.linalg.eigh(x)
    return values, vectors


@loop_over_batch_on_cpu
def svd(x: Float[Array, "d e"]) -> tuple[Float[Array, "d k"], Float[Array, " k"], Array]:
    """Computes U, s, Vᵀ with k = min(d, e)."""
    U, s, Vt = jnp.linalg.svd(x, full_matrices=False)
    return U, s, Vt


@loop_over_batch_on_cpu
def cholesky(x: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Computes the lower triangle L of a positive definite matrix L Lᵀ."""
    return jnp.linalg.cholesky(x)


@loop_over_batch_on_cpu
def cho_solve(L: Float[Array, "d d"], b: Float[Array, " d"]) -> Float[Array, " d"]:
    """Solves L Lᵀ x = b for x."""
    return jax.scipy.linalg.cho_solve((L, True), b)


@loop_over_batch_on_cpu
def lu_factor(x: Float[Array, "d d"]) -> tuple[Float[Array, "d d"], Int[Array, " d"]]:
    """Computes the triangles L and U of a matrix in one array, and the pivots."""
    lu, pivots = jax.scipy.linalg.lu_factor(x)
    return lu, pivots


@loop_over_batch_on_cpu
def lu_solve(
    lu: Float[Array, "d d"], pivots: Int[Array, " d"], b: Float[Array, " d"]
) -> Float[Array, " d"]:
    """Solves A x = b for x, given what `lu_factor` returns for A."""
    return jax.scipy.linalg.lu_solve((lu, pivots), b)


@jax.custom_jvp
def inverse_cholesky(x: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Computes L⁻¹ for a positive definite matrix X = L Lᵀ.

    Its derivative is -Φ(L⁻¹ dX L⁻ᵀ) L⁻¹, where Φ keeps the lower triangle with half the diagonal:
    from L⁻¹ dX L⁻ᵀ = L⁻¹ dL + (L⁻¹ dL)ᵀ, whose first term is lower triangular.
    """
    L_inverse: Array = _inverse_cholesky(x)
    return L_inverse


@loop_over_batch_on_cpu
def _inverse_cholesky(x: Float[Array, "d d"]) -> Float[Array, "d d"]:
    L = jnp.linalg.cholesky(x)
    return jax.scipy.linalg.solve_triangular(L, jnp.eye(len(x), dtype=x.dtype), lower=True)


@inverse_cholesky.defjvp
def _inverse_cholesky_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x,), (dX,) = primals, tangents
    L_inverse = inverse_cholesky(x)
    # With X = L L^T: dL = L phi(L^-1 dX L^-T), where phi takes the lower triangle with half the
    # diagonal. So d(L^-1) = -L^-1 dL L^-1 = -phi L^-1.
    inner = precise_dot(precise_dot(L_inverse, (dX + dX.T) / 2), L_inverse.T)
    phi = jnp.tril(inner) - jnp.diag(jnp.diag(inner)) / 2
    return L_inverse, -precise_dot(phi, L_inverse)
