"""Maximum mean discrepancy: two sets of vectors come from the same distribution."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.auxiliary.base import Gather, Sums, check_widths, of_whole_batch, pairs, pooled
from mmjax.kernels.linear_algebra import dot
from mmjax.types import Batch, Seen

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
    """MMD² = E k(x, x') + E k(y, y') - 2 E k(x, y) of the present rows x of a and y of b.

    k is the mean over the bandwidths σ of exp(-‖x - y‖² / 2σ²). The biased estimate takes its means
    over all pairs, and is at least 0; the unbiased one leaves out those of a row with itself, and
    may be negative.

    Source: Gretton et al., JMLR 13 (2012), equations 3 and 5; section 8 for the median.

    Args:
      a: one modality's vectors.
      b: the other's; they need not be of the same examples.
      present_a: which rows of a count.
      present_b: which rows of b count.
      bandwidths: σ; None is the median distance between any two rows of a and b together, which
        counts as a constant.
      unbiased: which estimate. It takes two rows or more of each.
    """
    both, present = jnp.concatenate([a, b]), jnp.concatenate([present_a, present_b])
    squares = squared_distances(jnp.where(present[:, None], both, 0))
    known = present[:, None] & present[None]
    others = known & ~jnp.eye(len(both), dtype=bool)
    widths = [median_of(squares, others)] if bandwidths is None else [s**2 for s in bandwidths]
    kernel = jnp.stack([jnp.exp(-squares / (2 * w)) for w in widths]).mean(axis=0)
    n = len(a)
    within = others if unbiased else known
    value = (
        mean_where(kernel[:n, :n], within[:n, :n])
        + mean_where(kernel[n:, n:], within[n:, n:])
        - 2 * mean_where(kernel[:n, n:], known[:n, n:])
    )
    return value if unbiased else jnp.maximum(value, 0)


def mmd_to_normal(
    x: Float[Array, "b d"], present: Bool[Array, " b"], *, bandwidth: float | None = None
) -> Float[Array, ""]:
    """The biased MMD² between the present rows of x and N(0, I), which is not sampled but exact.

    With s = σ², E k(x, y) over y is (s/(1+s))^{d/2} exp(-‖x‖² / 2(1+s)), and E k(y, y') over both
    is (s/(2+s))^{d/2}. At least 0.

    Args:
      x: vectors.
      present: which rows count.
      bandwidth: σ; None is √(2d), the typical distance between two draws.
    """
    d = x.shape[1]
    s = 2.0 * d if bandwidth is None else bandwidth**2
    x = jnp.where(present[:, None], x, 0)
    kernel = jnp.exp(-squared_distances(x) / (2 * s))
    to_normal = (s / (1 + s)) ** (d / 2) * jnp.exp(-(x**2).sum(axis=1) / (2 * (1 + s)))
    return jnp.maximum(
        mean_where(kernel, present[:, None] & present[None])
        + (s / (2 + s)) ** (d / 2)
        - 2 * mean_where(to_normal, present),
        0,
    )


def squared_distances(x: Float[Array, "b d"]) -> Float[Array, "b b"]:
    """‖x_i - x_j‖² by one matrix product, of the rows less their mean, lest large ones cancel."""
    x = x - jax.lax.stop_gradient(x.mean(axis=0, keepdims=True))
    square = (x**2).sum(axis=1)
    return jnp.maximum(square[:, None] + square[None] - 2 * dot(x, x.T), 0)


def median_of(squares: Float[Array, "b b"], where: Bool[Array, "b b"]) -> Float[Array, ""]:
    """The square of the median distance, a constant; 1 where there is none, or where it is 0."""
    median = jnp.nanmedian(jnp.where(where, jnp.sqrt(squares), jnp.nan)) ** 2
    return jax.lax.stop_gradient(jnp.where(median > 0, median, 1))


def mean_where(x: Float[Array, "*s"], where: Bool[Array, "*s"]) -> Float[Array, ""]:
    """The mean over what is marked; 0 where nothing is."""
    return jnp.where(where, x, 0).sum() / jnp.maximum(where.sum(), 1).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class MMD:
    """`mmd` of every pair of modalities, over the batch of all devices; their mean.

    Each modality, as the mean of its tokens, counts where it is present, be the other there or not.

    Source: Gretton et al., JMLR 13 (2012); as a loss, Long et al., ICML 2015 (arXiv:1502.02791).

    Attributes:
      bandwidths: σ of the Gaussian kernels, averaged; None is the median distance in the batch.
      unbiased: which estimate; the unbiased one may be negative, so balancers that take logarithms
        of losses cannot have it.
      modalities: which are aligned; None is all. Their encoders have one width.
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
        seen: Seen,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """The losses of the pairs, summed, and how many pairs have two examples of each or more."""
        del predictions, batch, train
        couples = pairs(self, seen, self.modalities)
        vectors = pooled(seen, couples)
        check_widths(self, vectors, couples)
        loss = functools.partial(mmd, bandwidths=self.bandwidths, unbiased=self.unbiased)
        return of_whole_batch(loss, vectors, couples, gather, together=False)
