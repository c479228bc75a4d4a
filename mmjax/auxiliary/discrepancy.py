"""Maximum mean discrepancy between the distributions of two sets of vectors."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.auxiliary.base import (
    Gather,
    Sums,
    check_equal_widths,
    pair_modalities,
    pool_pairs,
    sum_pair_losses,
)
from mmjax.kernels.linear_algebra import precise_dot
from mmjax.types import Batch, Intermediates

Bandwidths = tuple[float, ...]


def mmd(
    a: Float[Array, "b d"],
    b: Float[Array, "c d"],
    present_a: Bool[Array, " b"],
    present_b: Bool[Array, " c"],
    *,
    bandwidths: Bandwidths | None = None,
    unbiased: bool = False,
) -> Float[Array, ""]:
    """Computes MMD² = E k(x, x') + E k(y, y') - 2 E k(x, y) of the present rows x of a, y of b.

    It is the squared distance between the means of both sets in the kernel's feature space, 0 only
    for equal distributions. k is the mean over the bandwidths σ of exp(-‖x - y‖² / 2σ²). The biased
    estimate takes its means over all pairs, and is at least 0; the unbiased one excludes pairs of a
    row with itself, and may be negative.

    Source: Gretton et al., JMLR 13 (2012), equations 3 and 5; section 8 for the median.

    Args:
      a: one modality's vectors.
      b: the other's; not necessarily of the same examples.
      present_a: which rows of a count.
      present_b: which rows of b count.
      bandwidths: σ; None is the median distance between any two rows of a and b together, which
        counts as a constant.
      unbiased: whether the estimate is the unbiased one, which needs two rows or more of each.

    Example:
      >>> a, present = jnp.array([[0.0], [1.0]]), jnp.ones(2, bool)
      >>> float(jax.jit(mmd)(a, a, present, present))
      0.0
      >>> mmd2 = mmd(a, a + 9, present, present, bandwidths=(1.0,))
      >>> print(f"{mmd2:.3f}")  # 1 + e^-0.5
      1.607
    """
    # One matrix of all distances has the blocks a-a, a-b and b-b.
    both, present = jnp.concatenate([a, b]), jnp.concatenate([present_a, present_b])
    d2 = _squared_distances(jnp.where(present[:, None], both, 0))
    pairs = present[:, None] & present[None]
    distinct_pairs = pairs & ~jnp.eye(len(both), dtype=bool)
    if bandwidths:
        sigma2: list[Any] = [s**2 for s in bandwidths]
    else:
        sigma2 = [_median_squared_distance(d2, distinct_pairs)]
    k = jnp.stack([jnp.exp(-d2 / (2 * s2)) for s2 in sigma2]).mean(axis=0)
    n = len(a)
    # Equation 3 of the paper averages over pairs of different rows, equation 5 over all pairs.
    within = distinct_pairs if unbiased else pairs
    value = (
        _masked_mean(k[:n, :n], within[:n, :n])
        + _masked_mean(k[n:, n:], within[n:, n:])
        - 2 * _masked_mean(k[:n, n:], pairs[:n, n:])
    )
    # The biased estimate is a squared norm, negative by round-off only; the other may be below 0.
    return value if unbiased else jnp.maximum(value, 0)


def mmd_to_normal(
    x: Float[Array, "b d"], present: Bool[Array, " b"], *, bandwidth: float | None = None
) -> Float[Array, ""]:
    """Computes the biased MMD² between the present rows of x and N(0, I), without sampling.

    With s = σ² and y, y' ~ N(0, I), E_y k(x, y) = (s/(1+s))^{d/2} exp(-‖x‖² / 2(1+s)) and
    E k(y, y') = (s/(2+s))^{d/2}. At least 0.

    Args:
      x: vectors.
      present: which rows count.
      bandwidth: σ; None is √(2d), the typical distance between two draws.

    Example:
      >>> x = jax.random.normal(jax.random.key(0), (100, 2))
      >>> present = jnp.ones(100, bool)
      >>> mmd2 = jax.jit(mmd_to_normal)
      >>> bool(mmd2(x, present) < 0.1 < mmd2(x + 2, present))
      True
    """
    d = x.shape[1]
    s = 2.0 * d if bandwidth is None else bandwidth**2
    x = jnp.where(present[:, None], x, 0)
    k = jnp.exp(-_squared_distances(x) / (2 * s))
    # The convolution of two Gaussians: x - y ~ N(x, I) under y ~ N(0, I), and y - y' ~ N(0, 2 I).
    to_normal = (s / (1 + s)) ** (d / 2) * jnp.exp(-(x**2).sum(axis=1) / (2 * (1 + s)))
    return jnp.maximum(
        _masked_mean(k, present[:, None] & present[None])
        + (s / (2 + s)) ** (d / 2)
        - 2 * _masked_mean(to_normal, present),
        0,
    )


def _squared_distances(x: Float[Array, "b d"]) -> Float[Array, "b b"]:
    """Computes ‖x_i - x_j‖² by one matrix product."""
    # Differences do not depend on the mean, and without it large squares do not cancel.
    x = x - jax.lax.stop_gradient(x.mean(axis=0, keepdims=True))
    # |x_i - x_j|^2 = |x_i|^2 + |x_j|^2 - 2 x_i . x_j
    square = (x**2).sum(axis=1)
    # Rounding may leave a small negative number on the diagonal.
    return jnp.maximum(square[:, None] + square[None] - 2 * precise_dot(x, x.T), 0)


def _median_squared_distance(d2: Float[Array, "b b"], mask: Bool[Array, "b b"]) -> Float[Array, ""]:
    """Returns the square of the median distance as a constant; 1 if it is 0 or undefined."""
    # The median heuristic of the paper's section 8, of distances and not of their squares.
    median = jnp.nanmedian(jnp.where(mask, jnp.sqrt(d2), jnp.nan)) ** 2
    return jax.lax.stop_gradient(jnp.where(median > 0, median, 1))


def _masked_mean(x: Float[Array, "*s"], mask: Bool[Array, "*s"]) -> Float[Array, ""]:
    """Computes the mean over the marked entries; 0 if there is none."""
    return jnp.where(mask, x, 0).sum() / jnp.maximum(mask.sum(), 1).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class MMD:
    """`mmd` of every pair of modalities, over the batch of all devices; their mean.

    Each modality, as the mean of its tokens, counts in every example that has it, with or without
    the other.

    Source: Gretton et al., JMLR 13 (2012); as a loss, Long et al., ICML 2015 (arXiv:1502.02791).

    Attributes:
      bandwidths: σ of the Gaussian kernels, averaged; None is the median distance in the batch.
      unbiased: whether the estimate is the unbiased one, which may be negative, so that balancers
        that take logarithms of losses cannot weigh it.
      modalities: the aligned modalities; None is all. Their encoders must have the same width.

    Example:
      >>> from mmjax.types import Tokens
      >>> x = jax.random.normal(jax.random.key(0), (4, 1, 3))
      >>> tokens = Tokens(x, jnp.ones((4, 1), bool))
      >>> seen = Intermediates({"image": tokens, "text": tokens}, None, {}, {})
      >>> batch = Batch({}, {}, {}, {}, {})
      >>> options = {"train": False, "gather": lambda x: x}
      >>> total, count = jax.jit(lambda seen: MMD()(seen, {}, batch, **options))(seen)
      >>> float(total), float(count)  # pairs of modalities
      (0.0, 1.0)
    """

    bandwidths: tuple[float, ...] | None = None
    unbiased: bool = False
    modalities: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.bandwidths is not None and not (
            self.bandwidths and all(s > 0 for s in self.bandwidths)
        ):
            raise ValueError(
                f"MMD.bandwidths is {self.bandwidths}; give positive numbers, or None for the "
                "median distance."
            )

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
        vectors = pool_pairs(seen, couples)
        check_equal_widths(self, vectors, couples)
        loss = functools.partial(mmd, bandwidths=self.bandwidths, unbiased=self.unbiased)
        return sum_pair_losses(loss, vectors, couples, gather, together=False)
