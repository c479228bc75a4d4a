"""The loss of a task from one modality alone."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.auxiliary.base import Sums, select_modalities
from mmjax.backbone import copy_module
from mmjax.fusion.pooling import pool
from mmjax.heads.class_weights import get_training_loss
from mmjax.types import Batch, Intermediates


class UnimodalLoss(nn.Module):
    """The mean loss of a task over the examples that have a modality, predicted from it alone.

    Attributes:
      modality: the modality.
      task: the task.
      head: a head for the task, such as `Classification(10)`. With `own_head`, it predicts from the
        mean token of the modality by parameters of its own, as in gradient blending and MMPareto;
        otherwise only its loss is used, and the prediction is that of the model's fusion, sharing
        and head from this modality alone: the branch under late fusion.
      own_head: see above.

    Example:
      >>> from mmjax import encoders, fusion, heads
      >>> parts = {"a": encoders.Features(), "b": encoders.Features()}
      >>> loss = UnimodalLoss("a", "y", heads.Classification(2))
      >>> from mmjax.model import Model
      >>> model = Model(parts, fusion.Concat(), {"y": heads.Classification(2)})
      >>> model = model.clone(auxiliary={"only_a": loss})
    """

    modality: str
    task: str
    head: Any
    own_head: bool = True

    @nn.nowrap
    def subsets(self, modalities: Sequence[str]) -> list[tuple[str, ...]]:
        """Returns the subsets whose predictions the objective needs."""
        return [] if self.own_head else [(self.modality,)]

    @nn.compact
    def __call__(
        self,
        seen: Intermediates,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Callable[[Any], Any],
    ) -> Sums:
        """Returns the total over this device's examples, and their number or weight."""
        del gather
        select_modalities(self, seen, [self.modality])
        check_task(self, self.task, predictions)
        if self.own_head:
            # A copy: the same object may be the model's head, or another objective's.
            own_head = copy_module(self.head)
            prediction = own_head(pool(seen.tokens[self.modality]).values, train=train)
        else:
            prediction = seen.subsets[self.modality][self.task]
        losses = jax.vmap(get_training_loss(self.head))(prediction, batch.targets[self.task])
        weights = weigh_examples(batch, self.task, is_present(seen, self.modality), self.head)
        return jnp.where(weights > 0, weights * losses, 0).sum(), weights.sum()


def check_task(objective: Any, task: str, predictions: dict[str, Array]) -> None:
    """Raises ValueError unless the model has the task."""
    if task not in predictions:
        raise ValueError(
            f"{type(objective).__name__} names the task {task!r}, but the model has only "
            f"{sorted(predictions)}."
        )


def is_present(seen: Intermediates, modality: str) -> Bool[Array, " b"]:
    """Returns whether each example shows the modality."""
    return seen.tokens[modality].mask.any(axis=1)


def weigh_examples(
    batch: Batch, task: str, counted: Bool[Array, " b"], head: Any = None
) -> Float[Array, " b"]:
    """Returns the weight of each example's label in a loss of the task; 0 if it does not count."""
    weights = batch.weights.get(task, jnp.ones(counted.shape)).astype(jnp.float32)
    if getattr(head, "class_weights", None) is not None:
        weights = weights * jax.vmap(head.weigh_target)(batch.targets[task])
    return jnp.where(batch.labeled[task] & counted, weights, 0.0)
