"""Predictions of one value per token or pixel."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from mmjax.data.dataset import Task
from mmjax.runs.prediction.ensemble_averages import average_log_probabilities
from mmjax.runs.prediction.predictions import Column, Outputs, compute_softmax


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
        return cls(task.classes, compute_softmax(outputs.values), indices)

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
      indices: Int[n rows columns], the predicted classes; -1 if all modalities are missing.
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
        return cls(task.classes, compute_softmax(outputs.values), indices)

    def make_columns(self, task: str) -> Iterator[Column]:
        """Yields the map of class indices."""
        yield Column(f"{task}/prediction", self.indices, [["integer"]])
