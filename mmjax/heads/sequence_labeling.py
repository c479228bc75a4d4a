"""A head for a label of every token."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float, Integer

from mmjax import losses, metrics
from mmjax.data.dataset import Task
from mmjax.heads.base import (
    Better,
    Features,
    Loss,
    check_classes,
    check_kind,
    check_places,
    labelled,
    mean_loss,
    output,
)
from mmjax.metrics import Statistics


class SequenceLabelling(nn.Module):
    """One of several classes for every token; a target of -1 is no label, as behind the end.

    The encoder must keep every step of time, as a recurrent one does with output="all".

    An example's loss is the mean over its labelled tokens; the metrics count tokens.

    Attributes:
      classes: number of classes.
      tokens: the modality whose tokens are labelled. A token is seen beside the task's features.
      hidden: widths of Dense + ReLU layers before the last.
      loss: (logits [c], class index) of ONE token -> scalar.
    """

    classes: int
    tokens: str | None = None
    hidden: tuple[int, ...] = ()
    loss: Loss = losses.cross_entropy

    features: ClassVar[Features] = "tokens"
    metrics: ClassVar[Mapping[str, Better]] = {"accuracy": "max", "macro_f1": "max"}

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], *, train: bool = False) -> Float[Array, "b n c"]:
        """Tokens [b n d] to logits [b n classes]."""
        return output(x, self.hidden, self.classes)

    @nn.nowrap
    def example_loss(
        self, prediction: Float[Array, "n c"], target: Integer[Array, " t"]
    ) -> Float[Array, ""]:
        """The loss of one example.

        Raises:
          ValueError: if there are not as many tokens as targets.
        """
        check_places(prediction.shape[:1], target.shape, "let the encoder keep every step of time.")
        return mean_loss(self.loss, prediction, *labelled(target))

    @nn.nowrap
    def statistics(
        self, prediction: Float[Array, "n c"], target: Integer[Array, " t"]
    ) -> Statistics:
        """The confusion matrix of one example's labelled tokens."""
        return {"confusion": metrics.confusions(prediction, target)}

    @nn.nowrap
    def summary(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Accuracy and macro F1 of summed statistics."""
        confusion = np.asarray(statistics["confusion"])
        return {
            "accuracy": metrics.accuracy(confusion),
            "macro_f1": metrics.macro_f1(confusion),
        }

    @nn.nowrap
    def check(self, task: Task, name: str) -> None:
        """Raises ValueError unless the head fits the task."""
        check_kind(self, task, name, "sequence")
        check_classes(task, name, self.classes)
