"""Correlation alignment: two modalities' vectors have the same covariance."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.auxiliary.base import (
    Gather,
    Sums,
    centred,
    check_widths,
    of_whole_batch,
    pairs,
    pooled,
)
from mmjax.kernels.linear_algebra import dot
from mmjax.types import Batch, Seen


def coral_distance(
    a: Float[Array, "b d"],
    b: Float[Array, "c d"],
    present_a: Bool[Array, " b"],
    present_b: Bool[Array, " c"],
) -> Float[Array, ""]:
    """‖C_a - C_b‖² / (4 d²), in Frobenius' norm, of the covariances of the present rows.

    The two sets need not be of the same examples.

    Source: Sun, Saenko, ECCV workshops 2016 (arXiv:1607.01719), equation 1.

    Args:
      a: one modality's vectors.
      b: the other's.
      present_a: which rows of a count.
      present_b: which rows of b count.
    """
    a, of_a = centred(a, present_a)
    b, of_b = centred(b, present_b)
    apart = dot(a.T, a) / jnp.maximum(of_a - 1, 1) - dot(b.T, b) / jnp.maximum(of_b - 1, 1)
    return (apart**2).sum() / (4 * a.shape[1] ** 2)


@dataclasses.dataclass(frozen=True)
class CORAL:
    """`coral_distance` of every pair of modalities, over the batch of all devices; their mean.

    Each modality, as the mean of its tokens, counts where it is present, be the other there or not.

    Source: Sun, Saenko, ECCV workshops 2016 (arXiv:1607.01719).

    Attributes:
      modalities: which are aligned; None is all. Their encoders have one width.
    """

    modalities: tuple[str, ...] | None = None

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
        return of_whole_batch(coral_distance, vectors, couples, gather, together=False)
