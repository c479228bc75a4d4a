"""A head for a real number."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float, Num

from mmjax import losses, metrics
from mmjax.data.dataset import Task
from mmjax.heads.base import Better, Features, Loss, apply_output_layers, check_task_kind
from mmjax.metrics import Statistics


class Regression(nn.Module):
    """A real number.

    The network predicts, and the loss sees, standardized values (y - mean) / scale, so the loss is
    about 1 at first for any unit; predictions and errors are in the target's unit.

    Attributes:
      hidden: widths of Dense + ReLU layers before the last.
      mean: mean of the training targets, in their unit.
      scale: their standard deviation, in the same unit.
      loss: (standardized prediction, standardized target) -> scalar.

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
    mean: float = 0.0
    scale: float = 1.0
    loss: Loss = losses.squared_error

    features: ClassVar[Features] = "vector"
    metrics: ClassVar[Mapping[str, Better]] = {"mae": "min", "rmse": "min", "r2": "max"}

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"Regression.scale is {self.scale}; it must be positive.")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], *, train: bool = False) -> Float[Array, " b"]:
        """Maps features [b d] to numbers [b] in the target's unit."""
        return self.mean + self.scale * apply_output_layers(x, self.hidden, 1)[:, 0]

    @nn.nowrap
    def standardize(self, value: Num[Array, ""]) -> Float[Array, ""]:
        """Returns (value - mean) / scale."""
        return (value - self.mean) / self.scale

    @nn.nowrap
    def example_loss(
        self, prediction: Float[Array, ""], target: Num[Array, ""]
    ) -> Float[Array, ""]:
        """Computes the loss of one example, on standardized values."""
        return self.loss(self.standardize(prediction), self.standardize(target))

    @nn.nowrap
    def statistics(self, prediction: Float[Array, ""], target: Num[Array, ""]) -> Statistics:
        """Computes one example's errors and moments, on standardized values."""
        return metrics.residuals(self.standardize(prediction), self.standardize(target))

    @nn.nowrap
    def summary(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Computes MAE and RMSE, in the target's unit, and R²."""
        sums = {name: float(value) for name, value in statistics.items()}
        count, squared = sums["count"], sums["squared"]
        return {
            "mae": self.scale * metrics.ratio(sums["absolute"], count),
            "rmse": self.scale * metrics.ratio(squared, count) ** 0.5,
            "r2": metrics.r2(squared, sums["target"], sums["target_squared"], count),
        }

    @nn.nowrap
    def check(self, task: Task, name: str) -> None:
        """Raises ValueError unless the head fits the task."""
        check_task_kind(self, task, name, "regression")
