"""CML: confidence must not rise when a modality is removed."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.auxiliary.base import Gather, Sums
from mmjax.backbone import join_modalities
from mmjax.modalities.imbalance.objectives.unimodal_loss import check_task, is_present
from mmjax.types import Batch, Intermediates


@dataclasses.dataclass(frozen=True)
class ConfidenceOrder:
    """Penalizes a confidence that rises when one modality is removed (CML).

    The mean of max(0, confidence without m - confidence with all) over the examples and their
    modalities m, of examples that have at least one more. The confidence is the probability of the
    most likely class. It is computed per example: labels are not needed. The paper draws chains of
    subsets; here every modality is removed once from all. The loss is at least 0.

    Source: Ma et al., "Calibrating multimodal learning", ICML 2023 (arXiv:2306.01265).

    Attributes:
      task: a task with logits of exclusive classes, of a `Classification` head.

    Example:
      >>> ConfidenceOrder("y").subsets(("a", "b"))
      [('b',), ('a',)]
    """

    task: str

    needs_kinds: ClassVar[tuple[str, ...]] = ("classification",)

    def subsets(self, modalities: Sequence[str]) -> list[tuple[str, ...]]:
        """Returns the subsets whose predictions the objective needs: all but one modality."""
        if len(modalities) < 2:
            return []
        return [tuple(x for x in modalities if x != m) for m in modalities]

    def __call__(
        self,
        seen: Intermediates,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Returns the total over this device's examples and their modalities, and their number."""
        del batch, train, gather
        check_task(self, self.task, predictions)
        logits, modalities = predictions[self.task], sorted(seen.tokens)
        if logits.ndim != 2:
            raise ValueError(
                f"ConfidenceOrder needs logits of classes [b c], but {self.task!r} predicts "
                f"{logits.shape}; name a task of a Classification head."
            )
        present = jnp.stack([is_present(seen, m) for m in modalities])
        totals, counts = jnp.zeros(()), jnp.zeros(())
        # The only modality cannot be removed: then the loss is 0 of 0 examples.
        for i, m in enumerate(modalities if len(modalities) > 1 else ()):
            without = seen.subsets[join_modalities(x for x in modalities if x != m)][self.task]
            rise = _compute_confidence(without) - _compute_confidence(logits)
            counted = present[i] & (present.sum(axis=0) > 1)
            totals += jnp.where(counted, jnp.maximum(rise, 0), 0).sum()
            counts += counted.sum()
        return totals, counts


def _compute_confidence(logits: Float[Array, "b c"]) -> Any:
    """Returns the probability of the most likely class."""
    return jax.nn.softmax(logits, axis=-1).max(axis=-1)
