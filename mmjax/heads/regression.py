"""A head for a real number."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from mmjax import losses, metrics
from mmjax.data.dataset import Task
from mmjax.heads.base import (
    Better,
    Features,
    Loss,
    apply_output_layers,
    check_target_shape,
    check_task_kind,
)
from mmjax.heads.label_facts import Standardization, check_scale
from mmjax.metrics import Metric, PerExample, Statistics


class Regression(nn.Module):
    """A real number, or a vector of them.

    The network predicts, and the loss sees, standardized values (y - mean) / scale, so the loss is
    about 1 at first for any unit; predictions and errors are in the target's unit.

    Attributes:
      hidden: widths of Dense + ReLU layers before the last.
      mean: mean of the training targets, in their unit; None: an `Experiment` computes it from the
        labels of its training split, and a model outside of an experiment uses 0.
      scale: their standard deviation, in the same unit; None: as `mean`, or 1.
      loss: (standardized prediction, standardized target) -> scalar; its mean over a vector.
      shape: () for a number, or (k,) for k numbers; then mean and scale may be tuples of k, and
        metrics are means over the k.
      extra_metrics: {name: function}, computed besides `metrics`; see `mmjax.metrics`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> head = Regression(mean=150.0, scale=20.0)
      >>> prediction, _ = head.init_with_output(jax.random.key(0), jnp.zeros((2, 5)))
      >>> prediction.shape
      (2,)
      >>> float(head.example_loss(prediction[0], jnp.array(190.0)))  # ((190 - 150) / 20)²
      4.0
    """

    hidden: tuple[int, ...] = ()
    mean: float | tuple[float, ...] | None = None
    scale: float | tuple[float, ...] | None = None
    loss: Loss = losses.squared_error
    shape: tuple[int, ...] = ()
    extra_metrics: Mapping[str, Metric] = dataclasses.field(default_factory=dict)

    features: ClassVar[Features] = "vector"
    metrics: ClassVar[Mapping[str, Better]] = {"mae": "min", "rmse": "min", "r2": "max"}

    def __post_init__(self) -> None:
        check_scale("Regression", self.scale)
        super().__post_init__()

    @property
    def units(self) -> Standardization:
        """Returns mean and scale, or 0 and 1: numbers, or arrays for a vector."""
        units = Standardization.of(self.mean, self.scale)
        return Standardization(*map(jnp.asarray, units)) if self.shape else units

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], *, train: bool = False) -> Float[Array, "b *k"]:
        """Maps features [b d] to numbers [b] or [b k] in the target's unit."""
        values = apply_output_layers(x, self.hidden, math.prod(self.shape))
        mean, scale = self.units
        if not self.shape:
            return mean + scale * values[:, 0]
        # All k numbers may have one mean and scale.
        return jnp.atleast_1d(mean)[None] + jnp.atleast_1d(scale)[None] * values

    @nn.nowrap
    def standardize(self, value: Num[Array, "*k"]) -> Float[Array, "*k"]:
        """Returns (value - mean) / scale."""
        mean, scale = self.units
        return (value - mean) / scale

    @nn.nowrap
    def example_loss(
        self, prediction: Float[Array, "*k"], target: Num[Array, "*k"]
    ) -> Float[Array, ""]:
        """Computes the loss of one example, on standardized values."""
        # In standard deviations, so that the loss does not depend on the unit of the target.
        values = self.standardize(prediction), self.standardize(target)
        return jax.vmap(self.loss)(*values).mean() if self.shape else self.loss(*values)

    @nn.nowrap
    def statistics(self, prediction: Float[Array, "*k"], target: Num[Array, "*k"]) -> Statistics:
        """Keeps one example's prediction and target."""
        return {"prediction": PerExample(prediction), "target": PerExample(target)}

    @nn.nowrap
    def summary(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Computes MAE and RMSE, in the target's unit, and R², in float64; means over a vector."""
        values = (statistics["prediction"].select(), statistics["target"].select())
        return {
            "mae": metrics.mean_absolute_error(*values),
            "rmse": metrics.root_mean_squared_error(*values),
            "r2": metrics.r2(*values),
        }

    @nn.nowrap
    def needs_labels(self) -> bool:
        """Returns whether `learn_from_labels` has something to compute."""
        return self.mean is None or self.scale is None

    @nn.nowrap
    def learn_from_labels(self, targets: Num[np.ndarray, "n *k"]) -> "Regression":
        """Returns the head with its missing mean or scale set to that of the training targets."""
        return self.clone(**self.units.fill_in(self.mean, self.scale, targets))

    @nn.nowrap
    def check(self, task: Task, name: str) -> None:
        """Raises ValueError unless the head fits the task."""
        check_task_kind(self, task, name, "regression")
        check_target_shape(task, name, self.shape)
