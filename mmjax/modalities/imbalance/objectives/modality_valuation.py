"""Sample-level modality valuation: an example trains more on modalities that contribute little."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mmjax.auxiliary.base import Gather, Sums
from mmjax.backbone import join_modalities
from mmjax.modalities.imbalance.objectives.unimodal_loss import (
    check_task,
    is_present,
    weigh_examples,
)
from mmjax.train.steps.modality_scores import compute_shapley_responses, list_subsets
from mmjax.types import Batch, Intermediates


@dataclasses.dataclass(frozen=True)
class ModalityValuation:
    """Cross-entropy from each modality alone, weighted by what it lacks in contribution.

    The value v(S) of a subset of an example's modalities is its size |S| if the prediction from it
    is right, and 0 otherwise. The contribution φ_m is the Shapley value of v, exact over all
    subsets: 1 each if every subset is right. The weight of modality m in an example is
    max(0, 1 - φ_m), a constant of the step; the loss is the mean over the examples and their
    modalities. A modality that an example lacks has no value, and no loss.

    The paper values the examples once per epoch, and repeats those of low contribution in training
    with the other modalities masked, the more often the larger 1 - φ_m. The weighted loss is the
    expected value of such repetitions.

    Source: Wei et al., "Enhancing multimodal cooperation via sample-level modality valuation", CVPR
    2024 (arXiv:2309.06255), for two modalities.

    Attributes:
      task: a task with logits of exclusive classes, of a `Classification` head.

    Example:
      >>> ModalityValuation("y").subsets(("a", "b"))
      [('a',), ('b',)]
    """

    task: str

    needs_kinds: ClassVar[tuple[str, ...]] = ("classification",)

    def subsets(self, modalities: Sequence[str]) -> list[tuple[str, ...]]:
        """Returns the subsets whose predictions the objective needs: all but none and all."""
        return list_subsets(modalities)[1:-1]

    def __call__(
        self,
        seen: Intermediates,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Returns the total over this device's examples and modalities, and their weight."""
        del train, gather
        check_task(self, self.task, predictions)
        target = batch.targets[self.task]
        if predictions[self.task].ndim != 2 or target.ndim != 1:
            raise ValueError(
                f"ModalityValuation needs logits [b c] and class indices [b], but {self.task!r} "
                f"has {predictions[self.task].shape} and {target.shape}; name a task of a "
                "Classification head."
            )
        logits = {s: x[self.task] for s, x in seen.subsets.items()}
        logits[join_modalities(seen.tokens)] = predictions[self.task]
        contributions = self._value_modalities(seen, logits, target)
        total, count = jnp.zeros(()), jnp.zeros(())
        for m, contribution in contributions.items():
            weights = weigh_examples(batch, self.task, is_present(seen, m))
            losses = optax.softmax_cross_entropy_with_integer_labels(logits[m], target)
            lack = jnp.maximum(1 - contribution, 0)
            total += jnp.where(weights > 0, weights * lack * losses, 0).sum()
            count += weights.sum()
        return total, count

    def _value_modalities(
        self, seen: Intermediates, logits: dict[str, Array], target: Array
    ) -> dict[str, Float[Array, " b"]]:
        """Returns each modality's contribution to every example."""
        modalities = tuple(sorted(seen.tokens))
        # The Shapley values are of trees by task; these have one leaf.
        values = {"none": {"": jnp.zeros(target.shape)}}
        for subset in list_subsets(modalities)[1:]:
            size = sum(is_present(seen, m).astype(jnp.float32) for m in subset)
            is_right = logits[join_modalities(subset)].argmax(axis=-1) == target
            values[join_modalities(subset)] = {"": jnp.where(is_right, size, 0.0)}
        contributions = compute_shapley_responses(values, modalities)
        return {m: jax.lax.stop_gradient(x[""]) for m, x in contributions.items()}
