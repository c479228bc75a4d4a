"""Layers, the mean loss over labeled positions, and checks that several heads share."""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from mmjax.data.dataset import Task

Better = Literal["max", "min"]
Features = Literal["vector", "tokens", "any"]
Loss = Callable[[Array, Array], Array]

HEAD_OF_KIND = {
    "classification": "Classification",
    "multilabel": "MultiLabel",
    "regression": "Regression",
    "ordinal": "Ordinal",
    "sequence": "SequenceLabeling",
    "segmentation": "Segmentation",
    "depth": "Depth",
}


def apply_output_layers(
    x: Float[Array, "... d"], hidden: tuple[int, ...], width: int
) -> Float[Array, "... o"]:
    """Applies Dense + ReLU per hidden width, then Dense, at least float32. For a compact method."""
    for i, size in enumerate(hidden):
        x = nn.relu(nn.Dense(size, name=f"hidden_{i}")(x))
    x = nn.Dense(width, name="output")(x)
    # Losses of half-precision logits would lose digits in their exponentials.
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def mean_labeled_loss(
    loss: Loss,
    prediction: Float[Array, "..."],
    target: Shaped[Array, "..."],
    labeled: Shaped[Array, "..."],
) -> Float[Array, ""]:
    """Computes the mean loss over the labeled positions of one example; 0 if there is none.

    Args:
      loss: (prediction, target) of one position -> scalar.
      prediction: [*positions, ...].
      target: [*positions], with the valid class 0 instead of a missing label: a masked loss of an
        invalid target would still have a NaN gradient.
      labeled: Bool[*positions].
    """
    values = _compute_position_losses(loss, prediction, target)
    total = jnp.where(labeled.reshape(-1), values, 0).sum()
    return total / jnp.maximum(labeled.sum(), 1).astype(total.dtype)


def mean_weighted_loss(
    loss: Loss,
    prediction: Float[Array, "..."],
    target: Shaped[Array, "..."],
    weights: Float[Array, "..."],
) -> Float[Array, ""]:
    """Computes the mean loss over the positions of one example under weights; 0 if all are 0.

    Args:
      loss: (prediction, target) of one position -> scalar.
      prediction: [*positions, ...].
      target: [*positions], with the valid class 0 instead of a missing label.
      weights: [*positions], at least 0.
    """
    values, weights = _compute_position_losses(loss, prediction, target), weights.reshape(-1)
    total = jnp.where(weights > 0, weights * values, 0).sum()
    divisor = jnp.where(weights.sum() > 0, weights.sum(), 1)
    return total / divisor.astype(total.dtype)


def _compute_position_losses(
    loss: Loss, prediction: Float[Array, "..."], target: Shaped[Array, "..."]
) -> Float[Array, " n"]:
    """Computes the loss of each of the n positions, in the order of their indices."""
    count = target.size
    return jax.vmap(loss)(
        prediction.reshape(count, *prediction.shape[target.ndim :]), target.reshape(count)
    )


def split_class_labels(
    target: Shaped[Array, "..."],
) -> tuple[Shaped[Array, "..."], Bool[Array, "..."]]:
    """Returns class indices with 0 instead of -1, and whether each is a label."""
    return jnp.maximum(target, 0), target >= 0


def check_same_places(prediction: tuple[int, ...], target: tuple[int, ...], fix: str) -> None:
    """Raises ValueError unless predictions and targets have the same positions."""
    if prediction != target:
        raise ValueError(
            f"A head predicts positions {prediction} but its targets have {target}; {fix}"
        )


def check_task_kind(head: nn.Module, task: Task, name: str, kind: str) -> None:
    """Raises ValueError unless the task is of that kind."""
    if task.kind != kind:
        raise ValueError(
            f"Task {name!r} is of kind {task.kind!r} but its head is {type(head).__name__}; "
            f"use {HEAD_OF_KIND[task.kind]}."
        )


def check_class_count(task: Task, name: str, classes: int) -> None:
    """Raises ValueError unless the task has that many classes."""
    if len(task.classes) != classes:
        raise ValueError(
            f"Task {name!r} has {len(task.classes)} classes but its head has {classes}; "
            f"set the head's classes to {len(task.classes)}."
        )


def check_target_shape(task: Task, name: str, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless the task's targets have that shape."""
    if task.shape != shape:
        raise ValueError(
            f"Task {name!r} has targets of shape {task.shape} but its head predicts {shape}; "
            f"set the head's shape to {task.shape}."
        )
