"""A head for any subset of several classes."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float, Shaped

from mmjax import losses, metrics
from mmjax.data.dataset import Task
from mmjax.heads.base import (
    Better,
    Features,
    Loss,
    apply_output_layers,
    check_class_count,
    check_task_kind,
    mean_labeled_loss,
    split_class_labels,
)
from mmjax.metrics import Metric, Statistics


class MultiLabel(nn.Module):
    """Any subset of several classes; with `partial`, a target of -1 is an unknown label.

    Unknown labels count neither in the loss, a mean over the known ones, nor in the metrics.

    Attributes:
      classes: number of classes.
      hidden: widths of Dense + ReLU layers before the last.
      loss: (logits [c], 0 or 1 [c]) -> scalar; with `partial`, called for one class at a time.
      partial: whether targets may be -1.
      extra_metrics: {name: function}, computed besides `metrics`; see `mmjax.metrics`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> head = MultiLabel(classes=3)
      >>> prediction, _ = head.init_with_output(jax.random.key(0), jnp.zeros((2, 5)))
      >>> prediction.shape
      (2, 3)
      >>> print(f"{head.example_loss(prediction[0], jnp.array([0, 1, 1])):.3f}")  # ln 2
      0.693
    """

    classes: int
    hidden: tuple[int, ...] = ()
    loss: Loss = losses.binary_cross_entropy
    partial: bool = False
    extra_metrics: Mapping[str, Metric] = dataclasses.field(default_factory=dict)

    features: ClassVar[Features] = "vector"
    metrics: ClassVar[Mapping[str, Better]] = {"macro_f1": "max", "micro_f1": "max"}

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], *, train: bool = False) -> Float[Array, "b c"]:
        """Maps features [b d] to logits [b classes], which predict a class above 0."""
        return apply_output_layers(x, self.hidden, self.classes)

    @nn.nowrap
    def example_loss(
        self, prediction: Float[Array, " c"], target: Shaped[Array, " c"]
    ) -> Float[Array, ""]:
        """Computes the loss of one example."""
        if not self.partial:
            return self.loss(prediction, target)
        # With partial labels every class has a loss of its own, and the unknown ones do not count.
        return mean_labeled_loss(
            lambda logit, label: self.loss(logit[None], label[None]),
            prediction,
            *split_class_labels(target),
        )

    @nn.nowrap
    def statistics(self, prediction: Float[Array, " c"], target: Shaped[Array, " c"]) -> Statistics:
        """Computes one example's hits and misses per class."""
        return {**metrics.count_hits(prediction, target)}

    @nn.nowrap
    def summary(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Computes macro and micro F1 from summed statistics.

        A class that is neither in a target nor predicted counts as F1 = 0 in the macro mean, as in
        scikit-learn for label indicators.
        """
        counts = np.stack([statistics["tp"], statistics["fp"], statistics["fn"]])
        return {
            "macro_f1": float(metrics.f1(*counts).mean()),
            "micro_f1": float(metrics.f1(*counts.sum(axis=1, keepdims=True))[0]),
        }

    @nn.nowrap
    def check(self, task: Task, name: str) -> None:
        """Raises ValueError unless the head fits the task."""
        check_task_kind(self, task, name, "multilabel")
        check_class_count(task, name, self.classes)
        if task.partial and not self.partial:
            raise ValueError(
                f"Task {name!r} has unknown labels; set the head's partial to True, so that they "
                "count neither in the loss nor in the metrics."
            )
