"""The records of a TFDS data set as examples: features are turned into arrays when wanted."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from mmjax.data.dataset import Task
from mmjax.data.load.column_kinds import (
    Audio,
    Image,
    Input,
    Label,
    Labels,
    Numbers,
    Target,
    Text,
    Value,
    declared,
)
from mmjax.data.load.decode import (
    UnreadableError,
    frames,
    image,
    tokens,
    typed,
    unicode,
    vocabulary,
)
from mmjax.data.load.scan_split import Example
from mmjax.data.load.tfds_features import at, inside_sequence
from mmjax.data.load.tfds_sources import Decoding

FULL = 2.0**15  # the magnitude of a recording's 16-bit integers


@dataclasses.dataclass(frozen=True)
class Reader:
    """How features become the array of one modality.

    Attributes:
      spec: what they are; None for a tensor, which stays as it is.
      paths: of the features.
      rate: a recording's samples a second.
      words: tokens of the known words, for text by words.
    """

    spec: Input | None
    paths: tuple[str, ...]
    rate: int = 0
    words: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def with_words(self, texts: Iterable[bytes]) -> "Reader":
        """The reader, with the vocabulary of these texts."""
        assert isinstance(self.spec, Text)
        return dataclasses.replace(self, words=vocabulary(texts, self.spec.vocabulary))

    def __call__(self, record: Mapping[str, Any]) -> np.ndarray | None:
        """The array of a record; None if it is missing."""
        values = [follow(record, path) for path in self.paths]
        if any(value is None for value in values):
            return None
        match self.spec:
            case Text():
                return tokens(_text(values[0]), self.spec, self.words)
            case Image():
                return image(_pixels(values[0]), self.spec)
            case Audio():
                return _heard(values[0], self.rate, self.spec)
            case Numbers():
                return _tensor(np.concatenate([np.atleast_1d(v) for v in values]))
        return _tensor(values[0])


class Goal(NamedTuple):
    """How a feature becomes the target of one task.

    Attributes:
      spec: what it is.
      classes: names of the classes, if the feature has names for whole numbers.
      several: whether it lists the classes that an example has.
    """

    spec: Target
    classes: tuple[str, ...] = ()
    several: bool = False

    def __call__(self, record: Mapping[str, Any]) -> Any:
        """The target of a record; None if there is none."""
        spec = self.spec
        if isinstance(spec, Labels):
            return [follow(record, path) for path in spec.columns]
        value = _plain(follow(record, spec.column))
        if self.several:
            return [int(i in value) for i in range(len(self.classes))]
        if self.classes and isinstance(value, int):
            return self.classes[value] if value >= 0 else None
        return float(value) if isinstance(spec, Value) and isinstance(value, int) else value


@dataclasses.dataclass(frozen=True)
class Records:
    """The examples of one split.

    Attributes:
      split: its name.
      source: its records.
      readers: of the modalities.
      goals: of the tasks.
    """

    split: str
    source: Decoding
    readers: Mapping[str, Reader]
    goals: Mapping[str, Goal]

    def __len__(self) -> int:
        return len(self.source)

    def fetch(self, rows: Sequence[int]) -> list[Example]:
        """The examples of those rows."""
        return [self._example(row) for row in rows]

    def place(self, row: int) -> str:
        """The split and the example's number."""
        return f"example {row} of {self.split!r}"

    def _example(self, row: int) -> Example:
        what = "record"
        try:
            record = self.source[row]
            inputs = {}
            for what, read in self.readers.items():
                inputs[what] = read(record)
            return Example(inputs, {task: goal(record) for task, goal in self.goals.items()})
        except (ValueError, OSError) as error:
            kind = ValueError if type(error) is ValueError else UnreadableError
            raise kind(f"{self.place(row)}, {what!r}: {error}") from None


def follow(record: Any, path: str) -> Any:
    """The value of a path in a record."""
    for part in path.split("/"):
        record = record[part]
    return record


def reader(features: Any, spec: str | Input) -> Reader:
    """How a modality is read, by its kind or, for a path alone, by its feature.

    Raises:
      ValueError: if it is a recording, and nobody knows its sample rate.
    """
    if isinstance(spec, Numbers):
        return Reader(spec, (spec.columns,) if isinstance(spec.columns, str) else spec.columns)
    path = spec if isinstance(spec, str) else spec.column
    feature = at(features, path)
    known = _kind(feature, path) if isinstance(spec, str) else spec
    if not isinstance(known, Audio):
        return Reader(known, (path,))
    rate = getattr(feature, "sample_rate", None) or known.sample_rate
    if not rate:
        raise ValueError(f"{path!r} does not tell its sample rate; give it to the `Audio`.")
    return Reader(known, (path,), rate)


def _kind(feature: Any, path: str) -> Input | None:
    match feature:
        case tfds.features.Text():
            return Text(path)
        case tfds.features.Image():
            return Image(path)
        case tfds.features.Audio():
            return Audio(path)
    return None


def is_sequence(features: Any, reader: Reader) -> bool:
    """Whether the first axis of what is read is time."""
    if isinstance(reader.spec, Text | Audio):
        return True
    if reader.spec is not None:
        return False
    feature = at(features, reader.paths[0])
    return bool(inside_sequence(features, reader.paths[0]) or feature.shape[:1] == (None,))


def goal(features: Any, spec: str | Target) -> Goal:
    """How a task's target is read, by its kind or, for a path alone, by its feature."""
    if isinstance(spec, Labels):
        return Goal(spec)
    spec = Label(spec) if isinstance(spec, str) else spec
    feature = at(features, spec.column)
    several = isinstance(feature, tfds.features.Sequence)
    inner = feature.feature if several else feature
    if not isinstance(inner, tfds.features.ClassLabel):
        return Goal(spec)
    classes = tuple(inner.names)
    return Goal(spec if several else Label(spec.column, classes), classes, several)


def texts(source: Decoding, path: str) -> Iterable[bytes]:
    """All texts of a split."""
    for row in range(len(source)):
        value = follow(source[row], path)
        if value is not None:
            yield value


def _plain(value: Any) -> Any:
    """A feature's value as a Python one; an empty text is None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        value = unicode(value)
    return None if value == "" else value


def _text(value: Any) -> bytes | str:
    if not isinstance(value, bytes | str):
        raise ValueError(f"it is of type {type(value).__name__}, no text.")
    return value


def _pixels(value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype != np.uint8 or array.ndim != 3:
        raise ValueError(f"it is {array.dtype}{list(array.shape)}, no image of uint8 [h w c].")
    return array


def _tensor(value: Any) -> np.ndarray | None:
    """Numbers as they are kept; None if there are none."""
    array = np.atleast_1d(np.asarray(value))
    if array.size == 0 or (array.dtype.kind == "f" and np.isnan(array).all()):
        return None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"it is of type {array.dtype}, not numbers.")
    return typed(array, "it")


def _heard(samples: np.ndarray, rate: int, spec: Audio) -> np.ndarray | None:
    if samples.size == 0:
        return None
    scaled = samples if samples.dtype.kind == "f" else samples / FULL
    return frames(scaled if scaled.ndim == 1 else scaled.mean(axis=1), rate, spec)


def taught(reader: Reader, train: Decoding) -> Reader:
    """A reader that knows the training split's words, if it needs them."""
    if isinstance(reader.spec, Text) and reader.spec.level == "word":
        return reader.with_words(texts(train, reader.spec.column))
    return reader


def task(goal: Goal) -> Task | None:
    """What is known of a task before its targets are read."""
    return Task("multilabel", goal.classes) if goal.several else declared(goal.spec)
