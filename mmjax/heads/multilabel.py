"""A head for any subset of several classes."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
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
from mmjax.heads.class_weights import (
    ClassWeights,
    check_class_weights,
    is_learned_weighting,
    learn_positive_weights,
    make_weight_array,
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
      positive_weights: weight of the loss of a 1 against that of a 0, which is 1: one number per
        class, or "balanced" (their ratio) or an `EffectiveNumber`, which an `Experiment` computes
        from its training labels. It is part of the loss, which is then called for one class at a
        time, in evaluation too.
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
    positive_weights: ClassWeights = None
    extra_metrics: Mapping[str, Metric] = dataclasses.field(default_factory=dict)

    features: ClassVar[Features] = "vector"
    metrics: ClassVar[Mapping[str, Better]] = {"macro_f1": "max", "micro_f1": "max"}

    def __post_init__(self) -> None:
        check_class_weights("MultiLabel.positive_weights", self.positive_weights, self.classes)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], *, train: bool = False) -> Float[Array, "b c"]:
        """Maps features [b d] to logits [b classes], which predict a class above 0."""
        return apply_output_layers(x, self.hidden, self.classes)

    @nn.nowrap
    def example_loss(
        self, prediction: Float[Array, " c"], target: Shaped[Array, " c"]
    ) -> Float[Array, ""]:
        """Computes the loss of one example."""
        if self.positive_weights is not None:
            return self._weighted_loss(prediction, target)
        if not self.partial:
            return self.loss(prediction, target)
        # With partial labels every class has a loss of its own, and the unknown ones do not count.
        return mean_labeled_loss(
            lambda logit, label: self.loss(logit[None], label[None]),
            prediction,
            *split_class_labels(target),
        )

    @nn.nowrap
    def _weighted_loss(
        self, prediction: Float[Array, " c"], target: Shaped[Array, " c"]
    ) -> Float[Array, ""]:
        """Computes the mean over known labels of their losses, times the weights of the 1s."""
        weights = make_weight_array("MultiLabel.positive_weights", self.positive_weights)
        labels, is_known = split_class_labels(target)
        each = jax.vmap(lambda logit, label: self.loss(logit[None], label[None]))
        values = jnp.where(labels == 1, weights, 1.0) * each(prediction, labels)
        total = jnp.where(is_known, values, 0.0).sum()
        return total / jnp.maximum(is_known.sum(), 1).astype(total.dtype)

    @nn.nowrap
    def needs_labels(self) -> bool:
        """Returns whether `learn_from_labels` has something to compute."""
        return is_learned_weighting(self.positive_weights)

    @nn.nowrap
    def learn_from_labels(self, targets: Shaped[np.ndarray, "n c"]) -> "MultiLabel":
        """Returns the head with the weights that its rule gives to the training targets."""
        weights = self.positive_weights
        if not is_learned_weighting(weights) or targets.shape[1:] != (self.classes,):
            return self  # the check of the experiment refuses targets of other classes
        return self.clone(positive_weights=learn_positive_weights(weights, targets))

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
