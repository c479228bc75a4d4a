"""A head for a real number."""

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
from mmjax.metrics import Statistics


class Regression(nn.Module):
    """A real number, or a vector of them.

    The network predicts, and the loss sees, standardized values (y - mean) / scale, so the loss is
    about 1 at first for any unit; predictions and errors are in the target's unit.

    Attributes:
      hidden: widths of Dense + ReLU layers before the last.
      mean: mean of the training targets, in their unit.
      scale: their standard deviation, in the same unit.
      loss: (standardized prediction, standardized target) -> scalar; its mean over a vector.
      shape: () for a number, or (k,) for k numbers; then mean and scale may be tuples of k, and
        metrics are means over the k.

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
    mean: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0
    loss: Loss = losses.squared_error
    shape: tuple[int, ...] = ()

    features: ClassVar[Features] = "vector"
    metrics: ClassVar[Mapping[str, Better]] = {"mae": "min", "rmse": "min", "r2": "max"}

    def __post_init__(self) -> None:
        if not np.all(np.asarray(self.scale) > 0):
            raise ValueError(f"Regression.scale is {self.scale}; it must be positive.")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], *, train: bool = False) -> Float[Array, "b *k"]:
        """Maps features [b d] to numbers [b] or [b k] in the target's unit."""
        values = apply_output_layers(x, self.hidden, math.prod(self.shape))
        mean, scale = self.get_units()
        if not self.shape:
            return mean + scale * values[:, 0]
        # All k numbers may have one mean and scale.
        return jnp.atleast_1d(mean)[None] + jnp.atleast_1d(scale)[None] * values

    @nn.nowrap
    def get_units(self) -> tuple[Any, Any]:
        """Returns mean and scale: numbers, or arrays for a vector."""
        if not self.shape:
            return self.mean, self.scale
        return jnp.asarray(self.mean), jnp.asarray(self.scale)

    @nn.nowrap
    def standardize(self, value: Num[Array, "*k"]) -> Float[Array, "*k"]:
        """Returns (value - mean) / scale."""
        mean, scale = self.get_units()
        return (value - mean) / scale

    @nn.nowrap
    def example_loss(
        self, prediction: Float[Array, "*k"], target: Num[Array, "*k"]
    ) -> Float[Array, ""]:
        """Computes the loss of one example, on standardized values."""
        values = self.standardize(prediction), self.standardize(target)
        return jax.vmap(self.loss)(*values).mean() if self.shape else self.loss(*values)

    @nn.nowrap
    def statistics(self, prediction: Float[Array, "*k"], target: Num[Array, "*k"]) -> Statistics:
        """Computes one example's errors and moments, on standardized values."""
        values = self.standardize(prediction), self.standardize(target)
        return jax.vmap(metrics.residuals)(*values) if self.shape else metrics.residuals(*values)

    @nn.nowrap
    def summary(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Computes MAE and RMSE, in the target's unit, and R²; of a vector the means over it."""
        size = math.prod(self.shape)
        sums = {name: np.broadcast_to(value, size) for name, value in statistics.items()}
        scales, rows = np.broadcast_to(self.scale, size).tolist(), []
        for i, scale in enumerate(scales):
            one = {name: float(values[i]) for name, values in sums.items()}
            count, squared = one["count"], one["squared"]
            mae, rmse = metrics.ratio(one["absolute"], count), metrics.ratio(squared, count) ** 0.5
            r2 = metrics.r2(squared, one["target"], one["target_squared"], count)
            rows.append((scale * mae, scale * rmse, r2))
        means = np.mean(rows, axis=0).tolist()
        return dict(zip(("mae", "rmse", "r2"), means, strict=True))

    @nn.nowrap
    def check(self, task: Task, name: str) -> None:
        """Raises ValueError unless the head fits the task."""
        check_task_kind(self, task, name, "regression")
        check_target_shape(task, name, self.shape)
