"""Aligned-MTL: the gradients made orthogonal and equally long, then averaged."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.balance.base import Balancer, Wrt, from_gram
from mmjax.balance.solvers import uniform
from mmjax.balance.spectrum import Spectrum, spectrum
from mmjax.linear_algebra import dot


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
    of_gram = spectrum(gram)
    principal = dot(uniform(labeled), of_gram.vectors)
    shrink = jnp.sqrt(common_value(of_gram, scale) / of_gram.values)
    return dot(of_gram.vectors, principal * shrink)


def common_value(of_gram: Spectrum, scale: str) -> Float[Array, ""]:
    """The eigenvalue that all kept ones become."""
    values, _, kept = of_gram
    rank = jnp.maximum(kept.sum(), 1)
    if scale == "rmse":
        return jnp.where(kept, values, 0.0).sum() / rank
    # Eigenvalues ascend, so those that are kept stand last.
    first = len(values) - rank
    return values[first + (rank - 1) // 2] if scale == "median" else values[first]
