"""Deep canonical correlation analysis: linear maps of two modalities that correlate fully."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.auxiliary.base import Gather, Sums, centred, of_whole_batch, pairs, pooled
from mmjax.fusion.pooling import Pooled
from mmjax.kernels.linear_algebra import dot, inverse_root, svd
from mmjax.types import Batch, Seen

TINY = 1e-6


def cca(
    a: Float[Array, "b d"],
    b: Float[Array, "b e"],
    present_a: Bool[Array, " b"],
    present_b: Bool[Array, " b"],
    *,
    ridge: float = 1e-3,
) -> Float[Array, ""]:
    """min(d, e) less the sum of the canonical correlations of a and b, which is at least 0.

    The correlations are the singular values of L_a⁻¹ C_ab L_b⁻ᵀ, with the covariances C over the
    examples that have both and C_a + r mean(diag C_a) I = L_a L_aᵀ. The paper whitens by C^{-1/2},
    which gives the same values, and adds a fixed r I, whose effect depends on the scale of the
    vectors; here r is a share of their mean variance. Its gradient exists where correlations are
    equal, unlike that of an eigendecomposition; those below 1e-6 have none.

    With fewer examples than d + e the correlations of any two sets are large: they say nothing.

    Source: Andrew et al., ICML 2013, section 3.

    Args:
      a: one modality's vectors.
      b: the other's, row by row of the same examples.
      present_a: whether an example has the one.
      present_b: whether it has the other.
      ridge: r, what is added to the covariances, in mean variances.
    """
    paired = present_a & present_b
    a, count = centred(a, paired)
    b, _ = centred(b, paired)
    free = jnp.maximum(count - 1, 1)
    between = dot(a.T, b) / free
    half = whitened(dot(a.T, a) / free, between, ridge)
    both = whitened(dot(b.T, b) / free, half.T, ridge)
    return jnp.maximum(min(a.shape[1], b.shape[1]) - nuclear_norm(both), 0)


def whitened(
    covariance: Float[Array, "d d"], x: Float[Array, "d e"], ridge: float
) -> Float[Array, "d e"]:
    """L⁻¹ x for the covariance with its ridge, L Lᵀ."""
    variance = jnp.trace(covariance) / len(covariance)
    added = ridge * jnp.where(variance > 0, variance, 1)
    return dot(inverse_root(covariance + added * jnp.eye(len(covariance))), x)


@jax.custom_jvp
def nuclear_norm(x: Float[Array, "d e"]) -> Float[Array, ""]:
    """Sum of the singular values s, as Σ √(s² + ε²) - ε with ε = 1e-6.

    The gradient is U diag(s / √(s² + ε²)) Vᵀ, which no equal values disturb.
    """
    return _smooth(svd(x)[1])


@nuclear_norm.defjvp
def _nuclear_norm_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    left, s, right = svd(x)
    slope = s / jnp.sqrt(s**2 + TINY**2)
    return _smooth(s), jnp.vdot(dot(left * slope[None], right), tangent)


def _smooth(s: Float[Array, " k"]) -> Float[Array, ""]:
    return (jnp.sqrt(s**2 + TINY**2) - TINY).sum()


class DeepCCA(nn.Module):
    """`cca` of every pair of modalities, over the batch of all devices, after a linear map each.

    The paper maximises the sum of correlations; the loss is what this lacks to its maximum, the
    mean over the pairs. Modalities are taken as the mean of their tokens. The batch should be
    several times larger than the width.

    Source: Andrew et al., ICML 2013.

    Attributes:
      width: of the linear maps, and the most correlations that there can be.
      ridge: what is added to the covariances, in mean variances.
      modalities: which are correlated; None is all.
    """

    width: int = 8
    ridge: float = 1e-3
    modalities: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.ridge > 0:
            raise ValueError(f"DeepCCA.ridge is {self.ridge}; it must be positive, such as 1e-3.")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        seen: Seen,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """The losses of the pairs, summed, and how many pairs have two examples or more."""
        del predictions, batch, train
        couples = pairs(self, seen, self.modalities)
        made = {}
        for m, (values, present) in pooled(seen, couples).items():
            # The mean is taken off, so a bias would have no effect.
            project = nn.Dense(self.width, use_bias=False, name=f"project_{m}")
            made[m] = Pooled(project(values), present)
        loss = functools.partial(cca, ridge=self.ridge)
        return of_whole_batch(loss, made, couples, gather, together=True)
