"""Aligned-MTL: the gradients made orthogonal and equally long, then averaged."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.balance.base import Balancer, Wrt, from_gram
from mmjax.balance.solvers.convex import uniform, unit_gram
from mmjax.balance.solvers.spectrum import spectrum
from mmjax.kernels.linear_algebra import dot, svd


def aligned(
    scale: str = "min",
    *,
    wrt: Wrt = "params",
    weigh_heads: bool = False,
    rescale: bool = False,
) -> Balancer:
    """The mean of the orthogonal gradients that are nearest to the tasks' gradients.

    With the Gramian V L V^T the weights are s V L^(-1/2) V^T u over the eigenvalues above
    round-off, where u is 1/T and s is the length that all principal components are given.

    Norms may differ by a factor of 10^4 with errors below 10^-4. What is dropped as round-off are
    singular values below about 10^-5 of the largest, as of gradients that are shorter by that
    factor, and directions in which the UNIT gradients differ by less than about 1/1000, as two that
    are parallel or opposed up to such an angle.

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
    """Weights of the tasks' gradients in the mean of the aligned ones."""
    singular, right, kept = decompose_gradients(gram)
    principal = dot(right, uniform(labeled))
    shrink = jnp.where(kept, common_value(singular, kept, scale) / singular, 0.0)
    return dot(principal * shrink, right)


def decompose_gradients(
    gram: Float[Array, "t t"],
) -> tuple[Float[Array, " t"], Float[Array, "t t"], Bool[Array, " t"]]:
    """Singular values of the gradients, descending; their vectors over the tasks; which are real.

    The eigenvalues of the Gramian D C D, where C has the cosines and D the norms, are the squares,
    of which float32 loses those of gradients that are short beside others. So the rank is that of
    C, and the rest comes from R = L^(1/2) V^T D, where C = V L V^T and R^T R = D C D.
    """
    cosines, norms, nonzero = unit_gram(gram)
    values, basis, independent = spectrum(
        jnp.where(nonzero[:, None] & nonzero[None, :], cosines, 0.0)
    )
    roots = jnp.where(independent, jnp.sqrt(values), 0.0)
    factor = roots[:, None] * basis.T * jnp.where(nonzero, norms, 0.0)[None, :]
    # Column by column from the longest to the shortest, a decomposition finds small singular values
    # and their vectors to about the same relative precision as large ones.
    order = jnp.argsort(norms, descending=True)
    _, singular, right = svd(factor[:, order])
    right = right[:, jnp.argsort(order)]
    # Vectors of values below some 10^-5 of the largest are wrong by more than a few percent.
    kept = singular > 64 * jnp.finfo(gram.dtype).eps * singular[0]
    kept = kept & (jnp.arange(len(gram)) < independent.sum())
    return jnp.where(kept, singular, 1.0), right, kept


def common_value(
    singular: Float[Array, " t"], kept: Bool[Array, " t"], scale: str
) -> Float[Array, ""]:
    """The singular value that all kept ones become."""
    rank = jnp.maximum(kept.sum(), 1)
    if scale == "rmse":
        largest = singular[0]
        return largest * jnp.sqrt(jnp.where(kept, (singular / largest) ** 2, 0.0).sum() / rank)
    # Singular values descend, so those that are kept stand first.
    return singular[rank - 1 - (rank - 1) // 2] if scale == "median" else singular[rank - 1]
