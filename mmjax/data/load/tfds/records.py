"""The records of a TFDS data set as examples, which are converted on demand."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float

from mmjax.data.dataset import Modality, Task
from mmjax.data.kinds import INPUT_KINDS, Input, Label, LabelSet, Target, get_columns
from mmjax.data.kinds.protocols import Learned
from mmjax.data.load.decode import UnreadableError, convert_tensor
from mmjax.data.load.examples import Example
from mmjax.data.load.tfds.features import get_feature, is_inside_sequence
from mmjax.data.load.tfds.sources import Decoding
from mmjax.data.sampling.example_weights import read_weight_array


@dataclasses.dataclass(frozen=True)
class Reader:
    """How features become the array of one modality.

    Attributes:
      spec: their kind; None for a tensor, which stays as it is.
      paths: of the features.
      learned: what the training split says about them.
    """

    spec: Input | None
    paths: tuple[str, ...]
    learned: Learned = dataclasses.field(default_factory=dict)

    def __call__(self, record: Mapping[str, Any]) -> np.ndarray | None:
        """Returns the array of a record; None if it is missing."""
        values = [get_value(record, path) for path in self.paths]
        if any(value is None for value in values):
            return None
        if self.spec is None:
            return convert_tensor(values[0])
        return self.spec.read_feature(values, self.learned)


class Goal(NamedTuple):
    """How a feature becomes the target of one task.

    Attributes:
      spec: its kind.
      classes: names of the classes, if the feature has names for whole numbers.
      several: whether it lists the classes that an example has.
    """

    spec: Target
    classes: tuple[str, ...] = ()
    several: bool = False

    def __call__(self, record: Mapping[str, Any]) -> Any:
        """Returns the target of a record; None if there is none."""
        value = self.spec.read_feature([get_value(record, path) for path in get_columns(self.spec)])
        if self.several:
            return [int(i in value) for i in range(len(self.classes))]
        if self.classes and isinstance(value, int):  # TFDS marks a missing label by -1
            return self.classes[value] if value >= 0 else None
        return value


@dataclasses.dataclass(frozen=True)
class Records:
    """The examples of one split.

    Attributes:
      split: its name.
      source: its records.
      readers: {modality: its reader}.
      goals: {task: its goal}.
    """

    split: str
    source: Decoding
    readers: Mapping[str, Reader]
    goals: Mapping[str, Goal]

    def __len__(self) -> int:
        return len(self.source)

    def fetch(self, rows: Sequence[int]) -> list[Example]:
        """Returns the examples of those rows."""
        return [self._example(row) for row in rows]

    def place(self, row: int) -> str:
        """Returns the split and the number of the example."""
        return f"example {row} of {self.split!r}"

    def _example(self, row: int) -> Example:
        name = "record"
        try:
            record = self.source[row]
            inputs = {}
            for name, read in self.readers.items():
                inputs[name] = read(record)
            return Example(inputs, {task: goal(record) for task, goal in self.goals.items()})
        except (ValueError, OSError) as error:
            kind = ValueError if type(error) is ValueError else UnreadableError
            raise kind(f"{self.place(row)}, {name!r}: {error}") from None


def get_value(record: Any, path: str) -> Any:
    """Returns the value of a path in a record."""
    for part in path.split("/"):
        record = record[part]
    return record


def make_reader(features: Any, spec: str | Input, train: Decoding) -> Reader:
    """Makes the reader of a modality, by its kind or, for a path alone, by its feature.

    Raises:
      ValueError: if it is a recording, and nobody knows its sample rate.
    """
    paths = get_columns(spec)
    feature = get_feature(features, paths[0])
    kind = _infer_kind(feature, spec) if isinstance(spec, str) else spec
    if kind is None:
        return Reader(None, paths)
    columns = [_iterate_values(train, path) for path in paths]
    return Reader(kind, paths, kind.learn(columns, feature))


def _infer_kind(feature: Any, path: str) -> Input | None:
    for kind in INPUT_KINDS:
        if isinstance(feature, getattr(tfds.features, kind.__name__, ())):
            return kind(path)
    return None


def declare_modality(features: Any, reader: Reader) -> Modality:
    """Returns the modality that a reader makes, except for its shape."""
    if reader.spec is not None:
        return reader.spec.declare_modality(reader.learned)
    path = reader.paths[0]
    is_sequence = is_inside_sequence(features, path) or get_feature(features, path).shape[:1] == (
        None,
    )
    return Modality((), bool(is_sequence))


def make_goal(features: Any, spec: str | Target) -> Goal:
    """Makes the reader of a target, by its kind or, for a path alone, by its feature."""
    if not isinstance(spec, str | Label | LabelSet):
        return Goal(spec)
    spec = Label(spec) if isinstance(spec, str) else spec
    feature = get_feature(features, spec.column)
    several = isinstance(feature, tfds.features.Sequence)
    inner = feature.feature if several else feature
    if not isinstance(inner, tfds.features.ClassLabel):
        return Goal(spec)
    classes = tuple(inner.names)
    if several:
        return Goal(Label(spec.column), classes, several)
    return Goal(spec._replace(classes=classes), classes)


def _iterate_values(source: Decoding, path: str) -> Iterable[Any]:
    """Yields all values of a split that are not missing."""
    for row in range(len(source)):
        value = get_value(source[row], path)
        if value is not None:
            yield value


def read_weights(
    split: str, source: Decoding, weights: Mapping[str, str]
) -> dict[str, Float[np.ndarray, " n"]]:
    """Reads the weights of all the examples in one split; NaN where there is none.

    Args:
      split: its name.
      source: its records, of which only the weights need to be decoded.
      weights: {task: path of the feature}.

    Raises:
      ValueError: naming the split and the feature, if it is not one number per example.
    """
    numbers: dict[str, list[Any]] = {task: [] for task in weights}
    for row in range(len(source)):
        record = source[row]
        for task, path in weights.items():
            numbers[task].append(get_value(record, path))
    return {task: read_weight_array(split, weights[task], x) for task, x in numbers.items()}


def declare_task(goal: Goal) -> Task | None:
    """Returns the task; None if it is inferred from the targets."""
    return Task("multilabel", goal.classes) if goal.several else goal.spec.declare_task()
