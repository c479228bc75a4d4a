"""Aligned-MTL: gradients are made orthogonal and equally long, and then averaged."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.balance.base import Balancer, Wrt
from mmjax.balance.from_functions import from_gram
from mmjax.balance.solvers.convex import unit_gram
from mmjax.balance.solvers.simplex import uniform_weights
from mmjax.balance.solvers.spectrum import truncated_eigh
from mmjax.kernels.linear_algebra import precise_dot, svd


def aligned(
    scale: str = "min",
    *,
    wrt: Wrt = "params",
    weigh_heads: bool = False,
    rescale: bool = False,
) -> Balancer:
    """Averages the orthogonal gradients of equal length that are nearest to the tasks' gradients.

    With the singular value decomposition J = V S U^T, the problem min |J' - J|_F subject to
    J' J'^T = s^2 I is an orthogonal Procrustes problem, which J' = s V U^T = s V S^-1 V^T J solves.
    So the weights of the gradients in the mean of J' are s V S^-1 V^T u, with u = 1/T in all
    entries and the singular values that are above rounding errors.

    Norms may differ by a factor of 10^4 with errors below 10^-4. Left out as rounding errors are
    singular values below about 10^-5 of the largest, as of gradients that are shorter by that
    factor, and directions in which the UNIT gradients differ by less than about 1/1000, as of two
    gradients that are parallel or opposed up to such an angle.

    Args:
      scale: s. "min": the smallest singular value, as in the paper; "median": the median (the
        lower of two in the middle) and "rmse": the root mean square, as in the authors' code.
      wrt: see `from_gram`.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Raises:
      ValueError: if the scale is none of these.

    Source: Senushkin et al., CVPR 2023 (arXiv:2305.19000), algorithm 1. The authors' code takes the
    sum over tasks where the paper has weights that average; the mean is taken here.

    Example:
      Orthogonal gradients of lengths 3 and 1 both get length 1; their mean has half of each.

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import aligned, to_aggregator
      >>> aggregator = to_aggregator(aligned(), ("a", "b"))
      >>> gradients = jnp.array([[3.0, 0.0], [0.0, 1.0]])
      >>> print(np.asarray(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0]).round(3))
      [0.5 0.5]
    """
    if scale not in ("min", "median", "rmse"):
        raise ValueError(f'aligned: scale is {scale!r}; it must be "min", "median" or "rmse".')

    def weights(gram, *, key, labeled):
        return aligned_weights(gram, key=key, labeled=labeled, scale=scale)

    return from_gram(weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


def aligned_weights(
    gram: Float[Array, "t t"],
    *,
    key: Key[Array, ""],
    labeled: Bool[Array, " t"],
    scale: str = "min",
) -> Float[Array, " t"]:
    """Returns the weights of the tasks' gradients in the mean of the aligned gradients."""
    singular_values, V_T, significant = _decompose_gradients(gram)
    # (V s S^-1 V^T u)^T, from left to right. The orthogonal Procrustes problem min |J' - J|_F
    # subject to J' J'^T = s^2 I is solved by J' = s V U^T. With J = V S U^T, J' = s V S^-1 V^T J,
    # whose mean of rows weights those of J by the vector below.
    principal = precise_dot(V_T, uniform_weights(labeled))
    s = _common_singular_value(singular_values, significant, scale)
    return precise_dot(principal * jnp.where(significant, s / singular_values, 0.0), V_T)


def _decompose_gradients(
    gram: Float[Array, "t t"],
) -> tuple[Float[Array, " t"], Float[Array, "t t"], Bool[Array, " t"]]:
    """Returns (singular values of J, descending, V^T, which are significant) for J = V S U^T.

    The eigenvalues of the Gramian G = D C D, with the cosines C and the norms D, are the squares of
    the singular values; float32 loses those of gradients that are short beside others. So the rank
    is that of C = Q L Q^T, and the rest is the decomposition of R = L^(1/2) Q^T D, since
    R^T R = D C D = G. Insignificant singular values are replaced by 1.
    """
    cosines, norms, nonzero = unit_gram(gram)
    eigenvalues, Q, independent = truncated_eigh(
        jnp.where(nonzero[:, None] & nonzero[None, :], cosines, 0.0)
    )
    roots = jnp.where(independent, jnp.sqrt(eigenvalues), 0.0)
    R = roots[:, None] * Q.T * jnp.where(nonzero, norms, 0.0)[None, :]
    # With columns from the longest to the shortest, a decomposition finds small singular values and
    # their vectors to about the same relative precision as large ones.
    order = jnp.argsort(norms, descending=True)
    _, singular_values, V_T = svd(R[:, order])
    V_T = V_T[:, jnp.argsort(order)]
    # Vectors of values below about 10^-5 of the largest are wrong by more than a few percent.
    significant = singular_values > 64 * jnp.finfo(gram.dtype).eps * singular_values[0]
    significant = significant & (jnp.arange(len(gram)) < independent.sum())
    return jnp.where(significant, singular_values, 1.0), V_T, significant


def _common_singular_value(
    singular_values: Float[Array, " t"], significant: Bool[Array, " t"], scale: str
) -> Float[Array, ""]:
    """Returns s, the singular value that replaces all significant ones."""
    rank = jnp.maximum(significant.sum(), 1)
    if scale == "rmse":
        # In units of the largest, since squares can overflow.
        largest = singular_values[0]
        squares = jnp.where(significant, (singular_values / largest) ** 2, 0.0)
        return largest * jnp.sqrt(squares.sum() / rank)
    # Singular values descend, so the significant ones come first.
    index = rank - 1 - (rank - 1) // 2 if scale == "median" else rank - 1
    return singular_values[index]
