"""Correlation alignment: equal covariances of two modalities' vectors."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.auxiliary.base import (
    Gather,
    Sums,
    center_present,
    check_equal_widths,
    pair_modalities,
    pool_pairs,
    sum_pair_losses,
)
from mmjax.kernels.linear_algebra import precise_dot
from mmjax.types import Batch, Intermediates


def coral_distance(
    a: Float[Array, "b d"],
    b: Float[Array, "c d"],
    present_a: Bool[Array, " b"],
    present_b: Bool[Array, " c"],
) -> Float[Array, ""]:
    """Computes ‖C_a - C_b‖²_F / (4 d²) of the covariances of the present rows.

    The two sets may come from different examples.

    Source: Sun, Saenko, ECCV workshops 2016 (arXiv:1607.01719), equation 1.

    Args:
      a: one modality's vectors.
      b: the other's.
      present_a: which rows of a count.
      present_b: which rows of b count.

    Example:
      >>> a, present = jnp.array([[1.0], [3.0]]), jnp.ones(2, bool)
      >>> float(coral_distance(a, 2 * a, present, present))  # variances 2 and 8
      9.0
    """
    a, count_a = center_present(a, present_a)
    b, count_b = center_present(b, present_b)
    # Unbiased covariances, by n - 1; at least 1, so that a modality without examples gives 0.
    C_a = precise_dot(a.T, a) / jnp.maximum(count_a - 1, 1)
    C_b = precise_dot(b.T, b) / jnp.maximum(count_b - 1, 1)
    return ((C_a - C_b) ** 2).sum() / (4 * a.shape[1] ** 2)


@dataclasses.dataclass(frozen=True)
class CORAL:
    """`coral_distance` of every pair of modalities, over the batch of all devices; their mean.

    Each modality, as the mean of its tokens, counts in every example that has it, with or without
    the other.

    Source: Sun, Saenko, ECCV workshops 2016 (arXiv:1607.01719).

    Attributes:
      modalities: the aligned modalities; None is all. Their encoders must have the same width.

    Example:
      >>> from mmjax.types import Tokens
      >>> import jax
      >>> x = jax.random.normal(jax.random.key(0), (4, 1, 3))
      >>> tokens = Tokens(x, jnp.ones((4, 1), bool))
      >>> seen = Intermediates({"image": tokens, "text": tokens}, None, {}, {})
      >>> batch = Batch({}, {}, {}, {}, {})
      >>> options = {"train": False, "gather": lambda x: x}
      >>> total, count = CORAL()(seen, {}, batch, **options)
      >>> float(total), float(count)  # pairs of modalities
      (0.0, 1.0)
    """

    modalities: tuple[str, ...] | None = None

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
        return sum_pair_losses(coral_distance, vectors, couples, gather, together=False)
