"""A head for one of several classes."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
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
from mmjax.heads.class_weights import ClassWeighing, ClassWeights, check_class_weights
from mmjax.metrics import Metric, Statistics


class Classification(ClassWeighing, nn.Module):
    """A head for one of several classes. Labels may be soft: one share per class.

    Attributes:
      classes: number of classes.
      hidden: widths of Dense + ReLU layers before the last.
      loss: (logits [c], class index) -> scalar; for soft labels (logits [c], shares [c]) -> scalar.
      class_weights: weights in the training loss by class (for soft labels, an example gets the
        mean under its shares): one number per class, or "balanced" or an `EffectiveNumber`, which
        an `Experiment` computes from its training labels. The loss is divided by the sum of the
        weights. Evaluation is not weighted.
      extra_metrics: {name: function}, computed besides `metrics`; see `mmjax.metrics`.

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
    class_weights: ClassWeights = None
    extra_metrics: Mapping[str, Metric] = dataclasses.field(default_factory=dict)

    features: ClassVar[Features] = "vector"
    metrics: ClassVar[Mapping[str, Better]] = {"accuracy": "max", "macro_f1": "max"}

    def __post_init__(self) -> None:
        check_class_weights("Classification.class_weights", self.class_weights, self.classes)
        super().__post_init__()

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
        """Keeps one example's target (of soft labels the largest), prediction and confidence."""
        return metrics.record_choice(prediction, target.argmax() if target.ndim else target)

    @nn.nowrap
    def summary(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Computes accuracy and macro F1 of the labeled examples."""
        target, predicted = statistics["target"].select(), statistics["predicted"].select()
        counts = metrics.count_per_class(target, predicted, self.classes)
        return {
            "accuracy": metrics.accuracy(counts["tp"], counts["fn"]),
            "macro_f1": metrics.macro_f1(**counts),
        }

    @nn.nowrap
    def check(self, task: Task, name: str) -> None:
        """Raises ValueError unless the head fits the task."""
        check_task_kind(self, task, name, "classification")
        check_class_count(task, name, self.classes)
