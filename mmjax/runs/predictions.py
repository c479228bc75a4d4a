"""Predictions in the terms of their tasks: classes, numbers in a unit, spans, maps.

One type per kind of task says how the outputs of several seeds are averaged, what an output means,
and which columns of a table it becomes.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mmjax.data.dataset import Task

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


def average_log_probabilities(logits: Float[Array, "s ... c"]) -> Float[Array, "... c"]:
    """Returns the logarithms of the mean probabilities of `s` models.

    Example:
      >>> import jax.numpy as jnp
      >>> logits = jnp.log(jnp.array([[0.5, 0.5], [0.1, 0.9]]))
      >>> print(f"{jnp.exp(average_log_probabilities(logits))[1]:.3f}")
      0.700
    """
    logs = jax.nn.log_softmax(logits, axis=-1)
    return jax.nn.logsumexp(logs, axis=0) - np.log(len(logits)).astype(np.float32)


def average_log_odds(logits: Float[Array, "s ..."]) -> Float[Array, "..."]:
    """Returns the logits of the mean probabilities of `s` models, for yes-or-no predictions.

    Example:
      >>> import jax.numpy as jnp
      >>> print(average_log_odds(jnp.array([jnp.inf, -jnp.inf, 0.0])))  # of 1, 0 and 0.5
      0.0
    """
    yes = jax.nn.logsumexp(jax.nn.log_sigmoid(logits), axis=0)
    return yes - jax.nn.logsumexp(jax.nn.log_sigmoid(-logits), axis=0)


def average_values(values: Float[Array, "s ..."]) -> Float[Array, "..."]:
    """Returns the mean over `s` models."""
    return values.mean(axis=0)


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
            task, _softmax(outputs.values), outputs.values.argmax(axis=1), outputs.valid
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


class Span(NamedTuple):
    """Consecutive tokens of one class: from `start` to before `stop`."""

    label: str
    start: int
    stop: int


class TagPrediction(NamedTuple):
    """One of several classes per token.

    Attributes:
      classes: their names.
      probabilities: Float[n time classes].
      indices: Int[n time], the predicted classes; -1 after the end of a sequence.
    """

    classes: tuple[str, ...]
    probabilities: Float[np.ndarray, "n t c"]
    indices: Int[np.ndarray, "n t"]

    @staticmethod
    def average(logits: Float[Array, "s ..."]) -> Float[Array, "..."]:
        """Averages the outputs of `s` models; see `average_log_probabilities`."""
        return average_log_probabilities(logits)

    @classmethod
    def interpret(cls, task: Task, outputs: Outputs) -> "TagPrediction":
        """Interprets logits [n time classes]."""
        steps = outputs.values.shape[1]
        lengths = (
            np.full(len(outputs.values), steps) if outputs.lengths is None else outputs.lengths
        )
        is_token = np.arange(steps)[None] < np.where(outputs.valid, lengths, 0)[:, None]
        indices = np.where(is_token, outputs.values.argmax(axis=2), -1)
        return cls(task.classes, _softmax(outputs.values), indices)

    @property
    def names(self) -> list[list[str]]:
        """Names of the predicted classes of each sequence's tokens."""
        return [[self.classes[i] for i in row.tolist() if i >= 0] for row in self.indices]

    @property
    def spans(self) -> list[list[Span]]:
        """Spans of each sequence; see `find_spans`."""
        return [find_spans(names) for names in self.names]

    def make_columns(self, task: str) -> Iterator[Column]:
        """Yields the classes of the tokens, and the spans."""
        yield Column(f"{task}/prediction", self.names, ["string"])
        spans = [[span._asdict() for span in row] for row in self.spans]
        kind = [{"label": "string", "start": "integer", "stop": "integer"}]
        yield Column(f"{task}/spans", spans, kind)


def find_spans(names: Sequence[str]) -> list[Span]:
    """Finds the spans of consecutive tokens of one class.

    If every class is "O" or begins with "B-" or "I-", they are read so: "O" is outside of spans,
    "B-X" begins a span of X, and "I-X" continues one, or begins one if there is none.

    Example:
      >>> find_spans(["O", "B-PER", "I-PER", "B-PER"])
      [Span(label='PER', start=1, stop=3), Span(label='PER', start=3, stop=4)]
      >>> find_spans(["noun", "verb", "verb"])
      [Span(label='noun', start=0, stop=1), Span(label='verb', start=1, stop=3)]
    """
    has_prefixes = all(name == "O" or name[:2] in ("B-", "I-") for name in names)
    spans: list[Span] = []
    for i, name in enumerate(names):
        if has_prefixes and name == "O":
            continue
        label = name[2:] if has_prefixes else name
        begins = has_prefixes and name.startswith("B-")
        if spans and not begins and spans[-1].stop == i and spans[-1].label == label:
            spans[-1] = spans[-1]._replace(stop=i + 1)
        else:
            spans.append(Span(label, i, i + 1))
    return spans


class PixelPrediction(NamedTuple):
    """One of several classes per pixel.

    Attributes:
      classes: their names.
      probabilities: Float[n rows columns classes].
      indices: Int[n rows columns], the predicted classes; -1 if there is no modality.
    """

    classes: tuple[str, ...]
    probabilities: Float[np.ndarray, "n h w c"]
    indices: Int[np.ndarray, "n h w"]

    @staticmethod
    def average(logits: Float[Array, "s ..."]) -> Float[Array, "..."]:
        """Averages the outputs of `s` models; see `average_log_probabilities`."""
        return average_log_probabilities(logits)

    @classmethod
    def interpret(cls, task: Task, outputs: Outputs) -> "PixelPrediction":
        """Interprets logits [n rows columns classes]."""
        indices = np.where(outputs.valid[:, None, None], outputs.values.argmax(axis=3), -1)
        return cls(task.classes, _softmax(outputs.values), indices)

    def make_columns(self, task: str) -> Iterator[Column]:
        """Yields the map of class indices."""
        yield Column(f"{task}/prediction", self.indices, [["integer"]])


TaskPrediction = (
    ClassPrediction | SubsetPrediction | NumberPrediction | TagPrediction | PixelPrediction
)
PREDICTION_OF_KIND: dict[str, type[TaskPrediction]] = {
    "classification": ClassPrediction,
    "ordinal": OrdinalPrediction,
    "multilabel": SubsetPrediction,
    "regression": NumberPrediction,
    "sequence": TagPrediction,
    "segmentation": PixelPrediction,
    "depth": DepthPrediction,
}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions of every task for some examples.

    Attributes:
      tasks: {task: its predictions}, whose type depends on the kind of task.
      keys: {column: values} of the examples' columns that the model did not read.
    """

    tasks: Mapping[str, TaskPrediction]
    keys: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)

    def __getitem__(self, task: str) -> Any:
        """Returns the predictions of a task."""
        return self.tasks[task]

    def make_columns(self) -> list[Column]:
        """Returns the columns of all tasks, without the keys."""
        columns: list[Column] = []
        for task, prediction in self.tasks.items():
            columns += prediction.make_columns(task)
        return columns

    def to_frame(self) -> Any:
        """Makes a pandas DataFrame: the key columns, then one group of columns per task.

        Raises:
          ImportError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install 'mmjax[ablate]'.") from error
        columns: dict[str, Any] = {name: list(values) for name, values in self.keys.items()}
        for name, values, kind in self.make_columns():
            columns[name] = values if isinstance(kind, str) else list(values)
        return pd.DataFrame(columns)


def _make_class_columns(
    task: str, classes: tuple[str, ...], probabilities: Float[np.ndarray, "n c"]
) -> Iterable[Column]:
    if len(classes) > _MAX_CLASS_COLUMNS:
        return
    for i, name in enumerate(classes):
        yield Column(f"{task}/probability/{name}", probabilities[:, i], "float")


def _softmax(logits: Float[np.ndarray, "... c"]) -> Float[np.ndarray, "... c"]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _sigmoid(logits: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    # Written with tanh, which does not overflow.
    return 0.5 * (1 + np.tanh(0.5 * logits))


def _fill_invalid(outputs: Outputs) -> Float[np.ndarray, "n ..."]:
    """Returns the values, with NaN for examples without any modality."""
    valid = outputs.valid.reshape(-1, *(1,) * (outputs.values.ndim - 1))
    return np.where(valid, outputs.values, np.float32(np.nan))
