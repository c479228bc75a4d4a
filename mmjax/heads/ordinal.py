"""A head for one of several classes that have an order."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Key

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
from mmjax.metrics import Metric, PerExample, Statistics


class Ordinal(ClassWeighing, nn.Module):
    """One of several ordered classes, by a cumulative link: P(y > k) = σ(f(x) - t_k).

    The thresholds t_k increase by construction, so no class has a negative probability. The
    predicted class is the median, the number of logits over 0. `loss=losses.coral` trains the ranks
    as separate binary tasks instead.

    Source: McCullagh, "Regression models for ordinal data", 1980 (proportional odds).

    Attributes:
      classes: number of classes.
      hidden: widths of Dense + ReLU layers before the last.
      loss: (logits of y > k [c-1], class index) -> scalar.
      class_weights: weights in the training loss by class, as those of `Classification`.
      extra_metrics: {name: function}, computed besides `metrics`; see `mmjax.metrics`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> head = Ordinal(classes=4)
      >>> prediction, _ = head.init_with_output(jax.random.key(0), jnp.zeros((2, 5)))
      >>> prediction.shape
      (2, 3)
      >>> print(f"{head.example_loss(prediction[0], jnp.array(2)):.3f}")  # ln 4
      1.386
    """

    classes: int
    hidden: tuple[int, ...] = ()
    loss: Loss = losses.cumulative_link
    class_weights: ClassWeights = None
    extra_metrics: Mapping[str, Metric] = dataclasses.field(default_factory=dict)

    features: ClassVar[Features] = "vector"
    metrics: ClassVar[Mapping[str, Better]] = {"accuracy": "max", "mae": "min", "kappa": "max"}

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"Ordinal.classes is {self.classes}; an order needs at least 2.")
        check_class_weights("Ordinal.class_weights", self.class_weights, self.classes)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], *, train: bool = False) -> Float[Array, "b k"]:
        """Maps features [b d] to logits [b classes-1] of P(y > k) for each class k but the last."""
        f = apply_output_layers(x, self.hidden, 1)
        raw = self.param("thresholds", _initialize_even_thresholds, (self.classes - 1,)).astype(
            f.dtype
        )
        # t_0 is free, and every gap to the next threshold is positive.
        gaps = jnp.concatenate([raw[:1], jax.nn.softplus(raw[1:])])
        # logit P(y > k) = f(x) - t_k with increasing thresholds t_k.
        return f - jnp.cumsum(gaps)[None]

    @nn.nowrap
    def example_loss(
        self, prediction: Float[Array, " k"], target: Integer[Array, ""]
    ) -> Float[Array, ""]:
        """Computes the loss of one example."""
        return self.loss(prediction, target)

    @nn.nowrap
    def statistics(self, prediction: Float[Array, " k"], target: Integer[Array, ""]) -> Statistics:
        """Keeps one example's target and predicted class."""
        return {"target": PerExample(target), "predicted": PerExample((prediction > 0).sum())}

    @nn.nowrap
    def summary(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Computes accuracy, mean absolute error in classes, and quadratic weighted kappa."""
        target, predicted = statistics["target"].select(), statistics["predicted"].select()
        counts = metrics.count_per_class(target, predicted, self.classes)
        return {
            "accuracy": metrics.accuracy(counts["tp"], counts["fn"]),
            "mae": metrics.rank_error(target, predicted),
            "kappa": metrics.quadratic_kappa(target, predicted),
        }

    @nn.nowrap
    def check(self, task: Task, name: str) -> None:
        """Raises ValueError unless the head fits the task."""
        check_task_kind(self, task, name, "ordinal")
        check_class_count(task, name, self.classes)


def _initialize_even_thresholds(
    key: Key[Array, ""], shape: tuple[int], dtype: type = jnp.float32
) -> Float[Array, " k"]:
    """Initializes the first threshold and, under softplus⁻¹, the gaps: P(y) is uniform at f = 0."""
    del key
    count = shape[0] + 1
    # At f = 0 all classes are equally likely: P(y > k) = 1 - (k + 1) / K.
    thresholds = jax.scipy.special.logit(jnp.arange(1, count, dtype=dtype) / count)
    # The inverse of softplus, log(exp(gap) - 1), since the head applies softplus to the gaps.
    return jnp.concatenate([thresholds[:1], jnp.log(jnp.expm1(jnp.diff(thresholds)))])
