"""A head for one of several classes."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float, Num

from mmjax import losses, metrics
from mmjax.data.dataset import Task
from mmjax.heads.base import (
    Better,
    Features,
    Loss,
    apply_output_layers,
    check_class_count,
    check_task_kind,
)
from mmjax.metrics import Statistics


class Classification(nn.Module):
    """One of several classes, whose labels may be soft: one share per class.

    Attributes:
      classes: number of classes.
      hidden: widths of Dense + ReLU layers before the last.
      loss: (logits [c], class index) -> scalar; for soft labels (logits [c], shares [c]) -> scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> head = Classification(classes=3)
      >>> prediction, _ = head.init_with_output(jax.random.key(0), jnp.zeros((2, 5)))
      >>> prediction.shape
      (2, 3)
      >>> print(f"{head.example_loss(prediction[0], jnp.array(1)):.3f}")  # ln 3
      1.099
    """

    classes: int
    hidden: tuple[int, ...] = ()
    loss: Loss = losses.cross_entropy

    features: ClassVar[Features] = "vector"
    metrics: ClassVar[Mapping[str, Better]] = {"accuracy": "max", "macro_f1": "max"}

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], *, train: bool = False) -> Float[Array, "b c"]:
        """Maps features [b d] to logits [b classes]."""
        return apply_output_layers(x, self.hidden, self.classes)

    @nn.nowrap
    def example_loss(
        self, prediction: Float[Array, " c"], target: Num[Array, "*c"]
    ) -> Float[Array, ""]:
        """Computes the loss of one example."""
        return self.loss(prediction, target)

    @nn.nowrap
    def statistics(self, prediction: Float[Array, " c"], target: Num[Array, "*c"]) -> Statistics:
        """Computes one example's confusion matrix; of soft labels the largest counts."""
        target = target.argmax() if target.ndim else target
        return {"confusion": metrics.confusion(prediction, target)}

    @nn.nowrap
    def summary(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Computes accuracy and macro F1 from summed statistics."""
        confusion = np.asarray(statistics["confusion"])
        return {
            "accuracy": metrics.accuracy(confusion),
            "macro_f1": metrics.macro_f1(confusion),
        }

    @nn.nowrap
    def check(self, task: Task, name: str) -> None:
        """Raises ValueError unless the head fits the task."""
        check_task_kind(self, task, name, "classification")
        check_class_count(task, name, self.classes)
