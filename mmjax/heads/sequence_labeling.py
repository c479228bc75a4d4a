"""A head for one label per token."""

import dataclasses
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
    apply_output_layers,
    check_class_count,
    check_same_places,
    check_task_kind,
    mean_labeled_loss,
    split_class_labels,
)
from mmjax.heads.class_weights import ClassWeights, PositionWeighing, check_class_weights
from mmjax.metrics import Metric, Statistics


class SequenceLabeling(PositionWeighing, nn.Module):
    """One of several classes per token; a target of -1 marks a token without a label, or padding.

    The encoder must return one token per time step, as a recurrent one does with output="all".

    An example's loss is the mean over its labeled tokens; the metrics count tokens.

    Attributes:
      classes: number of classes.
      tokens: the modality whose tokens are labeled; each is concatenated with the task's features.
      hidden: widths of Dense + ReLU layers before the last.
      loss: (logits [c], class index) of ONE token -> scalar.
      class_weights: weights in the training loss by the class of a token, as those of
        `Classification`; an example counts as much as its labeled tokens do on average.
      extra_metrics: {name: function}, computed besides `metrics`; see `mmjax.metrics`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> head = SequenceLabeling(classes=3, tokens="text")
      >>> prediction, _ = head.init_with_output(jax.random.key(0), jnp.zeros((2, 4, 5)))
      >>> prediction.shape
      (2, 4, 3)
      >>> target = jnp.array([0, 2, -1, -1])  # two labels, then padding
      >>> print(f"{head.example_loss(prediction[0], target):.3f}")  # ln 3
      1.099
    """

    classes: int
    tokens: str | None = None
    hidden: tuple[int, ...] = ()
    loss: Loss = losses.cross_entropy
    class_weights: ClassWeights = None
    extra_metrics: Mapping[str, Metric] = dataclasses.field(default_factory=dict)

    features: ClassVar[Features] = "tokens"
    metrics: ClassVar[Mapping[str, Better]] = {"accuracy": "max", "macro_f1": "max"}

    def __post_init__(self) -> None:
        check_class_weights("SequenceLabeling.class_weights", self.class_weights, self.classes)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], *, train: bool = False) -> Float[Array, "b n c"]:
        """Maps tokens [b n d] to logits [b n classes]."""
        return apply_output_layers(x, self.hidden, self.classes)

    @nn.nowrap
    def example_loss(
        self, prediction: Float[Array, "n c"], target: Integer[Array, " t"]
    ) -> Float[Array, ""]:
        """Computes the loss of one example.

        Raises:
          ValueError: if the number of tokens is not that of the targets.
        """
        check_same_places(
            prediction.shape[:1], target.shape, "let the encoder keep every step of time."
        )
        return mean_labeled_loss(self.loss, prediction, *split_class_labels(target))

    @nn.nowrap
    def statistics(
        self, prediction: Float[Array, "n c"], target: Integer[Array, " t"]
    ) -> Statistics:
        """Counts hits and misses per class over one example's labeled tokens."""
        return {**metrics.count_confusions(prediction, target)}

    @nn.nowrap
    def summary(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Computes accuracy and macro F1 from summed statistics."""
        counts = statistics["tp"], statistics["fp"], statistics["fn"]
        tp, fp, fn = map(np.asarray, counts)
        return {"accuracy": metrics.accuracy(tp, fn), "macro_f1": metrics.macro_f1(tp, fp, fn)}

    @nn.nowrap
    def check(self, task: Task, name: str) -> None:
        """Raises ValueError unless the head fits the task."""
        check_task_kind(self, task, name, "sequence")
        check_class_count(task, name, self.classes)
