"""A head for the depth of every pixel."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from mmjax import losses, metrics
from mmjax.data.dataset import Task
from mmjax.heads.base import (
    Better,
    Features,
    Loss,
    check_target_shape,
    check_task_kind,
    mean_labeled_loss,
)
from mmjax.heads.decoder import Decoder
from mmjax.metrics import Statistics


class Depth(nn.Module):
    """A positive number per pixel; a target of 0 is not a measurement.

    As in `Regression`, the loss sees standardized values (y - mean) / scale. An example's loss is
    the mean over its measured pixels; the metrics are means over pixels.

    Attributes:
      shape: rows and columns of the target.
      tokens: a modality whose tokens are a map of the image, decoded together with the task's
        features; None decodes the features alone.
      decoder: as `Decoder.features`.
      mean: mean of the measured training targets, in their unit.
      scale: their standard deviation, in the same unit.
      loss: (standardized prediction, standardized target) of ONE pixel -> scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> head = Depth((6, 8), decoder=(4,), mean=2.0, scale=0.5)
      >>> x = jnp.zeros((2, 5))
      >>> prediction, _ = jax.eval_shape(head.init_with_output, jax.random.key(0), x)
      >>> prediction.shape
      (2, 6, 8)
      >>> sorted(head.metrics)
      ['absolute_error', 'relative_error', 'rmse']
    """

    shape: tuple[int, int]
    tokens: str | None = None
    decoder: tuple[int, ...] = (32, 16)
    mean: float = 0.0
    scale: float = 1.0
    loss: Loss = losses.absolute_error

    features: ClassVar[Features] = "any"
    metrics: ClassVar[Mapping[str, Better]] = {
        "absolute_error": "min",
        "relative_error": "min",
        "rmse": "min",
    }

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"Depth.scale is {self.scale}; it must be positive.")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], *, train: bool = False) -> Float[Array, "b h w"]:
        """Maps a vector [b d] or a map's tokens [b n d] to depths [b h w] in the target's unit."""
        values = Decoder(self.shape, 1, self.decoder, name="decoder")(x)[..., 0]
        return self.mean + self.scale * values

    @nn.nowrap
    def example_loss(
        self, prediction: Float[Array, "h w"], target: Float[Array, "h w"]
    ) -> Float[Array, ""]:
        """Computes the loss of one example, on standardized values."""
        standardized = (prediction - self.mean) / self.scale, (target - self.mean) / self.scale
        return mean_labeled_loss(self.loss, *standardized, target > 0)

    @nn.nowrap
    def statistics(
        self, prediction: Float[Array, "h w"], target: Float[Array, "h w"]
    ) -> Statistics:
        """Computes the errors of one example's measured pixels, divided by `scale`."""
        return metrics.depth_errors(prediction, target, self.scale)

    @nn.nowrap
    def summary(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Computes MAE and RMSE in the target's unit, and the mean of |error| / target."""
        sums = {name: float(value) for name, value in statistics.items()}
        count = sums["pixels"]
        return {
            "absolute_error": self.scale * metrics.ratio(sums["absolute"], count),
            "relative_error": metrics.ratio(sums["relative"], count),
            "rmse": self.scale * metrics.ratio(sums["squared"], count) ** 0.5,
        }

    @nn.nowrap
    def check(self, task: Task, name: str) -> None:
        """Raises ValueError unless the head fits the task."""
        check_task_kind(self, task, name, "depth")
        check_target_shape(task, name, self.shape)
