"""A head for the depth of every pixel."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import numpy as np
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
from mmjax.heads.label_facts import Standardization, check_scale
from mmjax.metrics import Metric, Statistics


class Depth(nn.Module):
    """A positive number per pixel; a target of 0 is not a measurement.

    As in `Regression`, the loss sees standardized values (y - mean) / scale. An example's loss is
    the mean over its measured pixels; the metrics are means over pixels.

    Attributes:
      shape: rows and columns of the target.
      tokens: a modality whose tokens are a map of the image, decoded together with the task's
        features; None decodes the features alone.
      decoder: as `Decoder.features`.
      mean: mean of the measured training targets, in their unit; None: an `Experiment` computes it,
        as for `Regression`.
      scale: their standard deviation, in the same unit; None: as `mean`.
      loss: (standardized prediction, standardized target) of ONE pixel -> scalar.
      extra_metrics: {name: function}, computed besides `metrics`; see `mmjax.metrics`.

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
    mean: float | None = None
    scale: float | None = None
    loss: Loss = losses.absolute_error
    extra_metrics: Mapping[str, Metric] = dataclasses.field(default_factory=dict)

    features: ClassVar[Features] = "any"
    metrics: ClassVar[Mapping[str, Better]] = {
        "absolute_error": "min",
        "relative_error": "min",
        "rmse": "min",
    }

    def __post_init__(self) -> None:
        check_scale("Depth", self.scale)
        super().__post_init__()

    @property
    def units(self) -> Standardization:
        """Returns mean and scale, or 0 and 1."""
        return Standardization.of(self.mean, self.scale)

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], *, train: bool = False) -> Float[Array, "b h w"]:
        """Maps a vector [b d] or a map's tokens [b n d] to depths [b h w] in the target's unit."""
        values = Decoder(self.shape, 1, self.decoder, name="decoder")(x)[..., 0]
        # The decoder's output is standardized, so that its initial values have the right size.
        return self.units.mean + self.units.scale * values

    @nn.nowrap
    def example_loss(
        self, prediction: Float[Array, "h w"], target: Float[Array, "h w"]
    ) -> Float[Array, ""]:
        """Computes the loss of one example, on standardized values."""
        mean, scale = self.units
        standardized = (prediction - mean) / scale, (target - mean) / scale
        return mean_labeled_loss(self.loss, *standardized, target > 0)

    @nn.nowrap
    def statistics(
        self, prediction: Float[Array, "h w"], target: Float[Array, "h w"]
    ) -> Statistics:
        """Keeps the sums of one example's errors over its measured pixels."""
        return metrics.sum_depth_errors(prediction, target, self.units.scale)

    @nn.nowrap
    def summary(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Computes MAE and RMSE in the target's unit, and the mean of |error| / target."""
        names = ("pixels", "absolute", "relative", "squared")
        sums = {name: float(statistics[name].select().sum(dtype=np.float64)) for name in names}
        # In the target's unit: squares were summed in units of the scale, against loss of
        # precision.
        count, scale = sums["pixels"], self.units.scale
        return {
            "absolute_error": scale * metrics.mean_from_sum(sums["absolute"], count),
            "relative_error": metrics.mean_from_sum(sums["relative"], count),
            "rmse": scale * metrics.mean_from_sum(sums["squared"], count) ** 0.5,
        }

    @nn.nowrap
    def needs_labels(self) -> bool:
        """Returns whether `learn_from_labels` has something to compute."""
        return self.mean is None or self.scale is None

    @nn.nowrap
    def learn_from_labels(self, targets: Float[np.ndarray, "n h w"]) -> "Depth":
        """Returns the head with its missing mean or scale set to that of the measured pixels."""
        return self.clone(**self.units.fill_in(self.mean, self.scale, targets[targets > 0]))

    @nn.nowrap
    def check(self, task: Task, name: str) -> None:
        """Raises ValueError unless the head fits the task."""
        check_task_kind(self, task, name, "depth")
        check_target_shape(task, name, self.shape)
