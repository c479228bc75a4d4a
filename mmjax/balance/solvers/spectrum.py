"""The spectrum of a Gramian up to its numerical rank, and the pseudo-inverse."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.kernels.linear_algebra import eigh, precise_dot


class Spectrum(NamedTuple):
    """Eigenvalues in ascending order and their eigenvectors, as columns.

    Attributes:
      values: 1 in place of the insignificant ones, so that one can divide by them.
      vectors: orthonormal; 0 in place of those of insignificant eigenvalues.
      significant: whether the eigenvalue is above rounding errors.
    """

    values: Float[Array, " t"]
    vectors: Float[Array, "t t"]
    significant: Bool[Array, " t"]


def truncated_eigh(gram: Float[Array, "t t"]) -> Spectrum:
    """Computes the eigenvalues above max(T, 10) machine epsilons of the largest one.

    Ten, since in float32 Gramians of up to 40 dependent gradients of 40,000 parameters, eigenvalues
    of up to 3 epsilons were measured that should be 0.

    Example:
      >>> print(truncated_eigh(jnp.ones((2, 2))).significant)
      [False  True]
    """
    values, vectors = eigh(gram)
    significant = values > max(len(gram), 10) * jnp.finfo(gram.dtype).eps * values[-1]
    return Spectrum(
        jnp.where(significant, values, 1.0), jnp.where(significant[None], vectors, 0.0), significant
    )


def pinv_solve(gram: Float[Array, "t t"], right: Float[Array, " t"]) -> Float[Array, " t"]:
    """Multiplies a vector by the pseudo-inverse of a Gramian.

    Example:
      >>> import numpy as np
      >>> x = pinv_solve(jnp.ones((2, 2)), jnp.array([2.0, 2.0]))
      >>> print(np.asarray(x).round(3))
      [1. 1.]
    """
    values, vectors, _ = truncated_eigh(gram)

    def solve(b: Float[Array, " t"]) -> Float[Array, " t"]:
        return precise_dot(vectors, precise_dot(b, vectors) / values)

    x = solve(right)
    # One step of iterative refinement removes the rounding errors of the eigenvectors.
    return x + solve(right - precise_dot(gram, x))
