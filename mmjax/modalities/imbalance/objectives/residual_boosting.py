"""ReconBoost: one modality fits what the ensemble of the others gets wrong."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmjax.auxiliary.base import Gather, Sums, select_modalities
from mmjax.backbone import join_modalities
from mmjax.modalities.imbalance.objectives.unimodal_loss import (
    check_task,
    is_present,
    weigh_examples,
)
from mmjax.types import Batch, Intermediates


def residual_cross_entropy(
    logits: Float[Array, " c"],
    others: Float[Array, " c"],
    target: Int[Array, ""],
    boost: float | Array,
    agreement: float | Array,
) -> Float[Array, ""]:
    """Computes -Σ_c (y_c - boost q_c) log p_c + agreement KL(q ‖ p), with constant q.

    p = softmax(logits) is the modality's prediction and q = softmax(others) that of the ensemble
    of the others; y is 1 at the target. The first term is cross-entropy minus `boost` times the
    cross-entropy to the others, which rewards p for being right where they are wrong; the second
    pulls p towards them.

    Example:
      >>> even, sure = jnp.zeros(2), jnp.array([0.0, 100.0])
      >>> print(f"{residual_cross_entropy(even, sure, jnp.array(0), 0.5, 0.0):.3f}")  # ln(2) / 2
      0.347
    """
    log_p = jax.nn.log_softmax(logits)
    log_q = jax.nn.log_softmax(jax.lax.stop_gradient(others))
    q = jnp.exp(log_q)
    residual = jax.nn.one_hot(target, len(logits)) - boost * q
    return -(residual * log_p).sum() + agreement * (q * (log_q - log_p)).sum()


@dataclasses.dataclass(frozen=True)
class ResidualBoosting:
    """The loss of one modality's learner against the ensemble of the others (ReconBoost).

    The learner of a modality is the model from this modality alone, under late fusion its branch;
    the ensemble of the others is the model from the others. See `residual_cross_entropy`. An
    example without other modalities has plain cross-entropy. Train it with the balancer
    `reconboost`, which lets the modalities take turns. The loss can be negative if boost > 0.

    Source: Hua et al., "ReconBoost: Boosting can achieve modality reconcilement", ICML 2024
    (arXiv:2405.09321).

    Attributes:
      modality: the modality that learns.
      task: a task with logits of exclusive classes, of a `Classification` head.
      boost: weight of the others' prediction in the residual, from 0 to 1.
      agreement: weight of KL(others ‖ modality).

    Example:
      >>> ResidualBoosting("a", "y").subsets(("a", "b", "c"))
      [('a',), ('b', 'c')]
    """

    modality: str
    task: str
    boost: float = 0.2
    agreement: float = 0.0

    needs_kinds: ClassVar[tuple[str, ...]] = ("classification",)

    def subsets(self, modalities: Sequence[str]) -> list[tuple[str, ...]]:
        """Returns the subsets whose predictions the objective needs."""
        others = tuple(m for m in modalities if m != self.modality)
        return [(self.modality,), others]

    def __call__(
        self,
        seen: Intermediates,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Returns the total over this device's examples, and their number or weight."""
        del train, gather
        select_modalities(self, seen, [self.modality])
        check_task(self, self.task, predictions)
        others = [m for m in sorted(seen.tokens) if m != self.modality]
        logits = seen.subsets[self.modality][self.task]
        ensemble = seen.subsets[join_modalities(others)][self.task]
        target = batch.targets[self.task]
        if logits.ndim != 2 or target.ndim != 1:
            raise ValueError(
                f"ResidualBoosting needs logits [b c] and class indices [b], but {self.task!r} has "
                f"{logits.shape} and {target.shape}; name a task of a Classification head."
            )
        has_others = jnp.zeros(len(target), bool)
        for m in others:
            has_others |= is_present(seen, m)
        # Without others there is no ensemble: what remains is plain cross-entropy.
        boost = jnp.where(has_others, self.boost, 0.0)
        agreement = jnp.where(has_others, self.agreement, 0.0)
        losses = jax.vmap(residual_cross_entropy)(logits, ensemble, target, boost, agreement)
        weights = weigh_examples(batch, self.task, is_present(seen, self.modality))
        return jnp.where(weights > 0, weights * losses, 0).sum(), weights.sum()
