"""Heads: a task's features become a prediction, with the loss and the metrics of the task.

Besides `__call__`, a head has pure methods that need no parameters and work on the module as it
stands: `example_loss` and `statistics` for ONE example, `summary` for the statistics' sums, and
`check` against the task that the data set declares. Predictions and losses are float32 (or
wider), whatever the compute type. A target of zeros is valid for every head.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Num, Shaped

from mmjax import losses, metrics
from mmjax.data.dataset import Task
from mmjax.metrics import Statistics

Better = Literal["max", "min"]
Loss = Callable[[Array, Array], Array]


class Classification(nn.Module):
    """One of several classes.

    Attributes:
      classes: number of classes.
      hidden: widths of Dense + ReLU layers before the last.
      loss: (logits [c], class index) -> scalar.
    """

    classes: int
    hidden: tuple[int, ...] = ()
    loss: Loss = losses.cross_entropy

    metrics: ClassVar[Mapping[str, Better]] = {"accuracy": "max", "macro_f1": "max"}

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], *, train: bool = False) -> Float[Array, "b c"]:
        """Features [b d] to logits [b classes]."""
        return output(x, self.hidden, self.classes)

    @nn.nowrap
    def example_loss(
        self, prediction: Float[Array, " c"], target: Integer[Array, ""]
    ) -> Float[Array, ""]:
        """The loss of one example."""
        return self.loss(prediction, target)

    @nn.nowrap
    def statistics(self, prediction: Float[Array, " c"], target: Integer[Array, ""]) -> Statistics:
        """One example's confusion matrix."""
        return {"confusion": metrics.confusion(prediction, target)}

    @nn.nowrap
    def summary(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Accuracy and macro F1 of summed statistics."""
        confusion = np.asarray(statistics["confusion"])
        return {
            "accuracy": metrics.accuracy(confusion),
            "macro_f1": metrics.macro_f1(confusion),
        }

    @nn.nowrap
    def check(self, task: Task, name: str) -> None:
        """Raises ValueError unless the head fits the task."""
        check_kind(self, task, name, "classification")
        check_classes(task, name, self.classes)


class MultiLabel(nn.Module):
    """Any number of several classes.

    Attributes:
      classes: number of classes.
      hidden: widths of Dense + ReLU layers before the last.
      loss: (logits [c], 0 or 1 [c]) -> scalar.
    """

    classes: int
    hidden: tuple[int, ...] = ()
    loss: Loss = losses.binary_cross_entropy

    metrics: ClassVar[Mapping[str, Better]] = {"macro_f1": "max", "micro_f1": "max"}

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], *, train: bool = False) -> Float[Array, "b c"]:
        """Features [b d] to logits [b classes]; a class is predicted where its logit is over 0."""
        return output(x, self.hidden, self.classes)

    @nn.nowrap
    def example_loss(
        self, prediction: Float[Array, " c"], target: Shaped[Array, " c"]
    ) -> Float[Array, ""]:
        """The loss of one example."""
        return self.loss(prediction, target)

    @nn.nowrap
    def statistics(self, prediction: Float[Array, " c"], target: Shaped[Array, " c"]) -> Statistics:
        """One example's hits and misses, class by class."""
        return metrics.hits(prediction, target)

    @nn.nowrap
    def summary(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Macro and micro F1 of summed statistics.

        A class that is neither in a target nor predicted counts as F1 = 0 in the macro mean, as
        scikit-learn has it for label indicators.
        """
        counts = [np.asarray(statistics[name]) for name in ("tp", "fp", "fn")]
        return {
            "macro_f1": float(metrics.f1(*counts).mean()),
            "micro_f1": float(metrics.f1(*(c.sum(keepdims=True) for c in counts))[0]),
        }

    @nn.nowrap
    def check(self, task: Task, name: str) -> None:
        """Raises ValueError unless the head fits the task."""
        check_kind(self, task, name, "multilabel")
        check_classes(task, name, self.classes)


class Regression(nn.Module):
    """A real number.

    The network predicts, and the loss sees, standardised values (y - mean) / scale, so the loss is
    about 1 at first whatever the unit; predictions and errors are in the target's unit.

    Attributes:
      hidden: widths of Dense + ReLU layers before the last.
      mean: mean of the training targets, in their unit.
      scale: their standard deviation, in the same unit.
      loss: (standardised prediction, standardised target) -> scalar.
    """

    hidden: tuple[int, ...] = ()
    mean: float = 0.0
    scale: float = 1.0
    loss: Loss = losses.squared_error

    metrics: ClassVar[Mapping[str, Better]] = {"mae": "min", "rmse": "min", "r2": "max"}

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"Regression.scale is {self.scale}; it must be positive.")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], *, train: bool = False) -> Float[Array, " b"]:
        """Features [b d] to numbers [b] in the target's unit."""
        return self.mean + self.scale * output(x, self.hidden, 1)[:, 0]

    @nn.nowrap
    def standardise(self, value: Num[Array, ""]) -> Float[Array, ""]:
        """(value - mean) / scale."""
        return (value - self.mean) / self.scale

    @nn.nowrap
    def example_loss(
        self, prediction: Float[Array, ""], target: Num[Array, ""]
    ) -> Float[Array, ""]:
        """The loss of one example, on standardised values."""
        return self.loss(self.standardise(prediction), self.standardise(target))

    @nn.nowrap
    def statistics(self, prediction: Float[Array, ""], target: Num[Array, ""]) -> Statistics:
        """One example's errors and moments, on standardised values."""
        return metrics.residuals(self.standardise(prediction), self.standardise(target))

    @nn.nowrap
    def summary(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Mean absolute and root mean squared error, in the target's unit, and R²."""
        sums = {name: float(value) for name, value in statistics.items()}
        count = sums.pop("count")
        absolute = sums.pop("absolute")
        return {
            "mae": self.scale * metrics.ratio(absolute, count),
            "rmse": self.scale * metrics.ratio(sums["squared"], count) ** 0.5,
            "r2": metrics.r2(**sums, count=count),
        }

    @nn.nowrap
    def check(self, task: Task, name: str) -> None:
        """Raises ValueError unless the head fits the task."""
        check_kind(self, task, name, "regression")


def output(x: Float[Array, "b d"], hidden: tuple[int, ...], width: int) -> Float[Array, "b o"]:
    """Dense + ReLU for each hidden width, then Dense, at least float32. For a compact method."""
    for i, size in enumerate(hidden):
        x = nn.relu(nn.Dense(size, name=f"hidden_{i}")(x))
    x = nn.Dense(width, name="output")(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def check_kind(head: nn.Module, task: Task, name: str, kind: str) -> None:
    """Raises ValueError unless the task is of that kind."""
    if task.kind != kind:
        heads = {"classification": "Classification", "multilabel": "MultiLabel"}
        raise ValueError(
            f"Task {name!r} is of kind {task.kind!r} but its head is {type(head).__name__}; "
            f"use {heads.get(task.kind, 'Regression')}."
        )


def check_classes(task: Task, name: str, classes: int) -> None:
    """Raises ValueError unless the task has that many classes."""
    if len(task.classes) != classes:
        raise ValueError(
            f"Task {name!r} has {len(task.classes)} classes but its head has {classes}; "
            f"set the head's classes to {len(task.classes)}."
        )
