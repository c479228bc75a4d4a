"""Predictions of one value per example, as classes or as numbers in the task's unit.

One type per kind of task says how the outputs of several seeds are averaged, what an output means,
and which columns of a table it becomes.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mmjax.data.dataset import Task
from mmjax.runs.prediction.ensemble_averages import (
    average_log_odds,
    average_log_probabilities,
    average_values,
)

_MAX_CLASS_COLUMNS = 100  # classes of a task that get a column each


class Column(NamedTuple):
    """A column of a table of predictions.

    Attributes:
      name: such as "digit/prediction" or "digit/probability/3".
      values: one per row; None, or NaN, if an example has no modality.
      kind: "string", "float" or "integer"; [kind] for lists, {name: kind} for records.
    """

    name: str
    values: Sequence[Any] | np.ndarray
    kind: Any


class Outputs(NamedTuple):
    """Outputs of a head for some examples.

    Attributes:
      values: [n, ...], in the head's own terms, such as logits.
      valid: whether each example has any modality.
      lengths: for one prediction per time step, the number of steps.
    """

    values: Float[np.ndarray, "n ..."]
    valid: Bool[np.ndarray, " n"]
    lengths: Int[np.ndarray, " n"] | None = None


class ClassPrediction(NamedTuple):
    """One of several classes.

    Attributes:
      classes: their names.
      probabilities: Float[n classes]; NaN for an example without any modality.
      indices: Int[n], the predicted class; -1 for an example without any modality.
    """

    classes: tuple[str, ...]
    probabilities: Float[np.ndarray, "n c"]
    indices: Int[np.ndarray, " n"]

    @staticmethod
    def average(logits: Float[Array, "s ..."]) -> Float[Array, "..."]:
        """Averages the outputs of `s` models; see `average_log_probabilities`."""
        return average_log_probabilities(logits)

    @classmethod
    def interpret(cls, task: Task, outputs: Outputs) -> "ClassPrediction":
        """Interprets logits [n classes]."""
        return cls._from_parts(
            task, compute_softmax(outputs.values), outputs.values.argmax(axis=1), outputs.valid
        )

    @classmethod
    def _from_parts(
        cls,
        task: Task,
        probabilities: Float[np.ndarray, "n c"],
        indices: Int[np.ndarray, " n"],
        valid: Bool[np.ndarray, " n"],
    ) -> "ClassPrediction":
        probabilities = np.where(valid[:, None], probabilities, np.float32(np.nan))
        return cls(task.classes, probabilities, np.where(valid, indices, -1))

    @property
    def names(self) -> list[str | None]:
        """Names of the predicted classes; None for an example without any modality."""
        return [self.classes[i] if i >= 0 else None for i in self.indices.tolist()]

    def make_columns(self, task: str) -> Iterator[Column]:
        """Yields the class, its probability, and the probability of each of at most 100 classes."""
        yield Column(f"{task}/prediction", self.names, "string")
        rows = np.arange(len(self.indices))
        yield Column(f"{task}/probability", self.probabilities[rows, self.indices], "float")
        yield from _make_class_columns(task, self.classes, self.probabilities)


class OrdinalPrediction(ClassPrediction):
    """One of several ordered classes; the predicted one is the median."""

    __slots__ = ()

    @staticmethod
    def average(logits: Float[Array, "s ..."]) -> Float[Array, "..."]:
        """Averages the outputs of `s` models; see `average_log_odds`."""
        return average_log_odds(logits)

    @classmethod
    def interpret(cls, task: Task, outputs: Outputs) -> "OrdinalPrediction":
        """Interprets logits [n classes-1] of y > k."""
        above = _sigmoid(outputs.values)
        ones = np.ones_like(above[:, :1])
        probabilities = -np.diff(np.concatenate([ones, above, 0 * ones], axis=1), axis=1)
        indices = (outputs.values > 0).sum(axis=1)
        return cls(*cls._from_parts(task, probabilities, indices, outputs.valid))


class SubsetPrediction(NamedTuple):
    """Any subset of several classes.

    Attributes:
      classes: their names.
      probabilities: Float[n classes], of each class; NaN for an example without any modality.
      chosen: Bool[n classes], whether a class is predicted: its probability is above 0.5.
    """

    classes: tuple[str, ...]
    probabilities: Float[np.ndarray, "n c"]
    chosen: Bool[np.ndarray, "n c"]

    @staticmethod
    def average(logits: Float[Array, "s ..."]) -> Float[Array, "..."]:
        """Averages the outputs of `s` models; see `average_log_odds`."""
        return average_log_odds(logits)

    @classmethod
    def interpret(cls, task: Task, outputs: Outputs) -> "SubsetPrediction":
        """Interprets logits [n classes]."""
        valid = outputs.valid[:, None]
        probabilities = np.where(valid, _sigmoid(outputs.values), np.float32(np.nan))
        return cls(task.classes, probabilities, (outputs.values > 0) & valid)

    @property
    def names(self) -> list[list[str] | None]:
        """Names of each example's predicted classes; None for one without any modality."""
        valid = ~np.isnan(self.probabilities).any(axis=1)
        subsets: list[list[str] | None] = []
        for row, is_valid in zip(self.chosen, valid, strict=True):
            subsets.append([self.classes[i] for i in np.flatnonzero(row)] if is_valid else None)
        return subsets

    def make_columns(self, task: str) -> Iterator[Column]:
        """Yields the list of classes, and the probability of each of at most 100 classes."""
        yield Column(f"{task}/prediction", self.names, ["string"])
        yield from _make_class_columns(task, self.classes, self.probabilities)


class NumberPrediction(NamedTuple):
    """A number.

    Attributes:
      values: Float[n], or Float[n d] for vectors; NaN for an example without any modality.
      unit: its unit.
    """

    values: Float[np.ndarray, "n *d"]
    unit: str

    @staticmethod
    def average(values: Float[Array, "s ..."]) -> Float[Array, "..."]:
        """Averages the outputs of `s` models; see `average_values`."""
        return average_values(values)

    @classmethod
    def interpret(cls, task: Task, outputs: Outputs) -> "NumberPrediction":
        """Interprets values in the target's unit."""
        return cls(_fill_invalid(outputs), task.unit)

    def make_columns(self, task: str) -> Iterator[Column]:
        """Yields the number, or the list of numbers."""
        kind: Any = "float"
        for _ in self.values.shape[1:]:
            kind = [kind]
        yield Column(f"{task}/prediction", self.values, kind)


class DepthPrediction(NumberPrediction):
    """A depth per pixel, Float[n rows columns]."""

    __slots__ = ()


def _make_class_columns(
    task: str, classes: tuple[str, ...], probabilities: Float[np.ndarray, "n c"]
) -> Iterable[Column]:
    if len(classes) > _MAX_CLASS_COLUMNS:
        return
    for i, name in enumerate(classes):
        yield Column(f"{task}/probability/{name}", probabilities[:, i], "float")


def compute_softmax(logits: Float[np.ndarray, "... c"]) -> Float[np.ndarray, "... c"]:
    """Computes probabilities over the last axis.

    Example:
      >>> compute_softmax(np.array([1000.0, 1000.0])).tolist()
      [0.5, 0.5]
    """
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _sigmoid(logits: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    # Written with tanh, which does not overflow.
    return 0.5 * (1 + np.tanh(0.5 * logits))


def _fill_invalid(outputs: Outputs) -> Float[np.ndarray, "n ..."]:
    """Returns the values, with NaN for examples without any modality."""
    valid = outputs.valid.reshape(-1, *(1,) * (outputs.values.ndim - 1))
    return np.where(valid, outputs.values, np.float32(np.nan))
