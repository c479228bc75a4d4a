"""Deep canonical correlation analysis: maximally correlated linear maps of two modalities."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.auxiliary.base import (
    Gather,
    Sums,
    center_present,
    pair_modalities,
    pool_pairs,
    sum_pair_losses,
)
from mmjax.fusion.pooling import Pooled
from mmjax.kernels.linear_algebra import inverse_cholesky, precise_dot, svd
from mmjax.types import Batch, Intermediates

_EPSILON = 1e-6


def cca(
    a: Float[Array, "b d"],
    b: Float[Array, "b e"],
    present_a: Bool[Array, " b"],
    present_b: Bool[Array, " b"],
    *,
    ridge: float = 1e-3,
) -> Float[Array, ""]:
    """Computes min(d, e) less the sum of the canonical correlations of a and b; at least 0.

    CCA finds U, V that maximize tr(Uᵀ C_ab V) subject to Uᵀ C_a U = I and Vᵀ C_b V = I. The maximum
    is the sum of the singular values of T = L_a⁻¹ C_ab L_b⁻ᵀ, the nuclear norm ‖T‖_*, with the
    covariances C over the examples that have both and C_a + r mean(diag C_a) I = L_a L_aᵀ. The
    paper whitens by C^{-1/2}, which gives the same values, and adds a fixed r I, whose effect
    depends on the scale of the vectors; here r is a share of their mean variance. The gradient
    exists if correlations are equal, unlike that of an eigendecomposition; those below 1e-6 have
    none.

    With fewer examples than d + e the correlations of any two sets are large and meaningless.

    Source: Andrew et al., ICML 2013, section 3.

    Args:
      a: one modality's vectors.
      b: the other's; row i of both is the same example.
      present_a: whether an example has the first modality.
      present_b: whether it has the second.
      ridge: r, the ridge of the covariances, in mean variances.

    Example:
      >>> a = jax.random.normal(jax.random.key(0), (50, 3))
      >>> present = jnp.ones(50, bool)
      >>> print(f"{jax.jit(cca)(a, 2 * a[:, ::-1] + 1, present, present):.2f}")  # fully correlated
      0.00
    """
    paired = present_a & present_b
    a, count = center_present(a, paired)
    b, _ = center_present(b, paired)
    dof = jnp.maximum(count - 1, 1)
    # T = L_a^-1 C_ab L_b^-T in two steps: first L_a^-1 C_ab, then L_b^-1 times its transpose, which
    # is T^T. A matrix and its transpose have the same singular values.
    C_ab = precise_dot(a.T, b) / dof
    half = _whiten(precise_dot(a.T, a) / dof, C_ab, ridge)
    T_transposed = _whiten(precise_dot(b.T, b) / dof, half.T, ridge)
    # There are min(d, e) correlations, each at most 1.
    return jnp.maximum(min(a.shape[1], b.shape[1]) - nuclear_norm(T_transposed), 0)


def _whiten(
    covariance: Float[Array, "d d"], x: Float[Array, "d e"], ridge: float
) -> Float[Array, "d e"]:
    """Computes L⁻¹ x for the covariance plus its ridge, L Lᵀ."""
    variance = jnp.trace(covariance) / len(covariance)
    # Constant vectors have no variance; any positive ridge then keeps the matrix invertible.
    diagonal = ridge * jnp.where(variance > 0, variance, 1)
    return precise_dot(inverse_cholesky(covariance + diagonal * jnp.eye(len(covariance))), x)


@jax.custom_jvp
def nuclear_norm(x: Float[Array, "d e"]) -> Float[Array, ""]:
    """Computes the sum of the singular values s, smoothed: Σ √(s² + ε²) - ε with ε = 1e-6.

    The gradient is U diag(s / √(s² + ε²)) Vᵀ, which is well defined for equal singular values.
    """
    return _sum_smoothed(svd(x)[1])


@nuclear_norm.defjvp
def _nuclear_norm_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    U, s, Vt = svd(x)
    # For x = U S V^T, the derivative of sum_k f(s_k) is U f'(S) V^T. It has no 1 / (s_i - s_j),
    # unlike the derivatives of U and V themselves.
    slope = s / jnp.sqrt(s**2 + _EPSILON**2)
    return _sum_smoothed(s), jnp.vdot(precise_dot(U * slope[None], Vt), tangent)


def _sum_smoothed(s: Float[Array, " k"]) -> Float[Array, ""]:
    return (jnp.sqrt(s**2 + _EPSILON**2) - _EPSILON).sum()


class DeepCCA(nn.Module):
    """`cca` of every pair of modalities, over the batch of all devices, after one linear map each.

    The paper maximizes the sum of correlations; the loss is the gap to its maximum, averaged over
    the pairs. Modalities are taken as the mean of their tokens. The batch should be several times
    larger than the width.

    Source: Andrew et al., ICML 2013.

    Attributes:
      width: of the linear maps, and the number of correlations.
      ridge: ridge of the covariances, in mean variances.
      modalities: the correlated modalities; None is all.

    Example:
      >>> from mmjax.types import Tokens
      >>> x = jax.random.normal(jax.random.key(0), (4, 1, 3))
      >>> tokens = Tokens(x, jnp.ones((4, 1), bool))
      >>> seen = Intermediates({"image": tokens, "text": tokens}, None, {}, {})
      >>> batch = Batch({}, {}, {}, {}, {})
      >>> key, options = jax.random.key(1), {"train": False, "gather": lambda x: x}
      >>> objective = DeepCCA(width=2)
      >>> call = functools.partial(objective.init_with_output, batch=batch, **options)
      >>> (total, count), _ = jax.jit(call)(key, seen, {})
      >>> float(count)  # pairs of modalities
      1.0
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
        seen: Intermediates,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Returns the sum of the pairs' losses, and the number of pairs that have one."""
        del predictions, batch, train
        couples = pair_modalities(self, seen, self.modalities)
        projected = {}
        for m, (values, present) in pool_pairs(seen, couples).items():
            # `cca` subtracts the mean, so a bias would have no effect.
            project = nn.Dense(self.width, use_bias=False, name=f"project_{m}")
            projected[m] = Pooled(project(values), present)
        loss = functools.partial(cca, ridge=self.ridge)
        return sum_pair_losses(loss, projected, couples, gather, together=True)
