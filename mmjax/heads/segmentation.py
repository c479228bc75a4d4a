"""A head for the class of every pixel."""

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
    check_class_count,
    check_target_shape,
    check_task_kind,
    mean_labeled_loss,
    split_class_labels,
)
from mmjax.heads.class_weights import ClassWeights, PositionWeighing, check_class_weights
from mmjax.heads.decoder import Decoder
from mmjax.metrics import Metric, Statistics


class Segmentation(PositionWeighing, nn.Module):
    """One of several classes per pixel; a target of -1 marks a pixel without a label.

    An example's loss is the mean over its labeled pixels; the metrics count pixels.

    Attributes:
      classes: number of classes.
      shape: rows and columns of the target.
      tokens: a modality whose tokens are a map of the image, decoded together with the task's
        features; None decodes the features alone.
      decoder: as `Decoder.features`.
      loss: (logits [c], class index) of ONE pixel -> scalar.
      class_weights: weights in the training loss by the class of a pixel, as those of
        `Classification`; an example counts as much as its labeled pixels do on average.
      extra_metrics: {name: function}, computed besides `metrics`; see `mmjax.metrics`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> head = Segmentation(classes=3, shape=(6, 8), decoder=(4,))
      >>> x = jnp.zeros((2, 5))
      >>> prediction, _ = jax.eval_shape(head.init_with_output, jax.random.key(0), x)
      >>> prediction.shape
      (2, 6, 8, 3)
      >>> sorted(head.metrics)
      ['mean_iou', 'pixel_accuracy']
    """

    classes: int
    shape: tuple[int, int]
    tokens: str | None = None
    decoder: tuple[int, ...] = (32, 16)
    loss: Loss = losses.cross_entropy
    class_weights: ClassWeights = None
    extra_metrics: Mapping[str, Metric] = dataclasses.field(default_factory=dict)

    features: ClassVar[Features] = "any"
    metrics: ClassVar[Mapping[str, Better]] = {"mean_iou": "max", "pixel_accuracy": "max"}

    def __post_init__(self) -> None:
        check_class_weights("Segmentation.class_weights", self.class_weights, self.classes)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], *, train: bool = False) -> Float[Array, "b h w c"]:
        """Maps a vector [b d] or a map's tokens [b n d] to logits [b h w classes]."""
        return Decoder(self.shape, self.classes, self.decoder, name="decoder")(x)

    @nn.nowrap
    def example_loss(
        self, prediction: Float[Array, "h w c"], target: Integer[Array, "h w"]
    ) -> Float[Array, ""]:
        """Computes the loss of one example."""
        return mean_labeled_loss(self.loss, prediction, *split_class_labels(target))

    @nn.nowrap
    def statistics(
        self, prediction: Float[Array, "h w c"], target: Integer[Array, "h w"]
    ) -> Statistics:
        """Counts hits and misses per class over one example's labeled pixels."""
        return {**metrics.count_confusions(prediction, target)}

    @nn.nowrap
    def summary(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Computes mean intersection over union, and accuracy, from summed statistics."""
        counts = statistics["tp"], statistics["fp"], statistics["fn"]
        tp, fp, fn = map(np.asarray, counts)
        return {
            "mean_iou": metrics.mean_iou(tp, fp, fn),
            "pixel_accuracy": metrics.accuracy(tp, fn),
        }

    @nn.nowrap
    def check(self, task: Task, name: str) -> None:
        """Raises ValueError unless the head fits the task."""
        check_task_kind(self, task, name, "segmentation")
        check_class_count(task, name, self.classes)
        check_target_shape(task, name, self.shape)
