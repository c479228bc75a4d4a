"""A data set: its modalities, its tasks, and the sources of each split's examples."""

import dataclasses
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from mmjax.types import Batch


class Modality(NamedTuple):
    """One kind of input.

    Attributes:
      shape: shape of one example; for a sequence the first axis is time, padded to the longest.
      sequence: whether the first axis is time, with one true length per example.
      vocabulary: the meaning of each integer token of a text, from 0 on; () if it is not known.
      parts: arrays of an input that consists of several, such as the nodes and the edges of a
        graph; its input and its lengths are then mappings with the same names, and the other
        attributes have no meaning. See `mmjax.data.group_modalities`.

    Example:
      >>> Modality((48, 24), sequence=True).shape
      (48, 24)
    """

    shape: tuple[int, ...]
    sequence: bool = False
    vocabulary: tuple[str, ...] = ()
    parts: Mapping[str, "Modality"] = {}

    def list_unknown_tokens(self) -> tuple[int, ...]:
        """Lists the tokens that encode words or categories unknown to the training split.

        Example:
          >>> Modality((5,), True, ("padding", "unknown", "cat")).list_unknown_tokens()
          (1,)
        """
        names = self.vocabulary[:2]
        return (1,) if names == ("padding", "unknown") else ()

    def describe(self) -> str:
        """Describes the shape of an example."""
        if self.parts:
            return "; ".join(f"{name}: {part.describe()}" for name, part in self.parts.items())
        sizes = " x ".join(map(str, self.shape)) or "a number"
        return f"sequence, up to {sizes}" if self.sequence else sizes


class Task(NamedTuple):
    """One prediction target.

    Attributes:
      kind: "classification" (target: class index, or one share per class), "multilabel" (target: 0
        or 1 per class), "regression" (target: float, or a vector of them), "ordinal" (target:
        index of a class in an order), "sequence" (target: class index per step, or -1),
        "segmentation" (target: class index per pixel, or -1) or "depth" (target: positive float
        per pixel, or 0); -1 and 0 mean "no label".
      classes: names of the classes, for all kinds except regression and depth.
      unit: unit of the target of a regression or a depth.
      shape: shape of one example's target: (time,) or (rows, columns) for the last three kinds,
        (classes,) for shares, the length of a vector, otherwise ().
      partial: whether a multi-label target is -1 for classes whose label is unknown.

    Example:
      >>> Task("classification", classes=("cat", "dog")).classes
      ('cat', 'dog')
    """

    kind: Literal[
        "classification",
        "multilabel",
        "regression",
        "ordinal",
        "sequence",
        "segmentation",
        "depth",
    ]
    classes: tuple[str, ...] = ()
    unit: str = ""
    shape: tuple[int, ...] = ()
    partial: bool = False


@runtime_checkable
class Source(Protocol):
    """Random access to the examples of one split."""

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> Batch:
        """Returns the examples at `indices`, in that order, as NumPy arrays."""
        ...


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A source whose examples all lie in memory.

    Example:
      >>> everywhere = np.ones(3, bool)
      >>> source = Arrays(Batch({"a": np.arange(3)}, {"a": everywhere}, {}, {}, {}))
      >>> source.take(np.array([2, 0])).inputs["a"].tolist()
      [2, 0]
    """

    batch: Batch

    def __len__(self) -> int:
        return self.batch.size

    def take(self, indices: np.ndarray) -> Batch:
        """Returns the examples at `indices`, in that order."""
        return jax.tree.map(lambda array: array[indices], self.batch)

    def __repr__(self) -> str:
        return f"<Arrays: {len(self):,} examples>"


class Preparation(NamedTuple):
    """How values of one modality became the arrays that the model takes.

    Attributes:
      kind: the kind of column (see `mmjax.data.kinds`) that reads them; None for arrays.
      learned: what the kind's `learn` found in the training split.
      dtype: type of the arrays.
      scale: the standardization (see `mmjax.data.normalize.Scale`); None if there is none.
      lengths: name of the array of lengths, for sequences that are padded already.

    Example:
      >>> Preparation(dtype="uint8").kind is None
      True
    """

    kind: Any = None
    learned: Mapping[str, Any] = types.MappingProxyType({})
    dtype: str = "float32"
    scale: Any = None
    lengths: str | None = None


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A named data set with its splits, usually "train", "validation" and "test".

    Attributes:
      name: name of the data set.
      modalities: its kinds of input, by name.
      tasks: its prediction targets, by name.
      splits: the source of each split's examples.
      facts: what else is known about the data, such as the best possible accuracy.
      preparations: {modality: how its values became arrays}; `mmjax.load` prepares new examples in
        the same way. A modality that is not in it takes arrays as they are.
    """

    name: str
    modalities: Mapping[str, Modality]
    tasks: Mapping[str, Task]
    splits: Mapping[str, Source]
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preparations: Mapping[str, Preparation] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(source):,} {split}" for split, source in self.splits.items())
        inputs, targets = ", ".join(self.modalities), ", ".join(self.tasks)
        return f"<Dataset {self.name!r}: {sizes}; inputs {inputs}; targets {targets}>"


def split_parts(
    batch: Batch, modalities: Mapping[str, Modality]
) -> tuple[Batch, dict[str, Modality]]:
    """Makes every part of a modality that has parts a modality of its own, called NAME.PART.

    Raises:
      ValueError: if the input of such a modality is not a mapping of its parts.

    Example:
      >>> graph = Modality((), parts={"nodes": Modality((9, 4), sequence=True)})
      >>> inputs, present = {"graph": {"nodes": np.zeros((1, 9, 4))}}, {"graph": np.ones(1, bool)}
      >>> batch = Batch(inputs, present, {"graph": {"nodes": np.array([3])}}, {}, {})
      >>> split_parts(batch, {"graph": graph})[0].lengths
      {'graph.nodes': array([3])}
    """
    inputs, present, lengths = dict(batch.inputs), dict(batch.present), dict(batch.lengths)
    specs = dict(modalities)
    for name, modality in modalities.items():
        if not modality.parts or name not in inputs:
            continue
        del specs[name]
        arrays, where, ends = inputs.pop(name), present.pop(name), lengths.pop(name, {})
        if not isinstance(arrays, Mapping) or set(arrays) != set(modality.parts):
            raise ValueError(
                f"The input of the modality {name!r} must be a mapping of the arrays "
                f"{sorted(modality.parts)}, but it is "
                f"{sorted(arrays) if isinstance(arrays, Mapping) else type(arrays).__name__}."
            )
        for part, spec in modality.parts.items():
            path = f"{name}.{part}"
            specs[path], inputs[path], present[path] = spec, arrays[part], where
            if part in ends:
                lengths[path] = ends[part]
                present[path] = where & (ends[part] != 0)  # a graph may have no edges
    return batch._replace(inputs=inputs, present=present, lengths=lengths), specs


def get_split(data: Dataset, split: str) -> Source:
    """Returns a split of a data set.

    Raises:
      ValueError: there is none of that name.
    """
    if split not in data.splits:
        raise ValueError(f"{data.name} has no split {split!r}, only {sorted(data.splits)}.")
    return data.splits[split]


def select_modalities_and_tasks(
    batch: Batch, modalities: Iterable[str], tasks: Iterable[str]
) -> Batch:
    """Keeps the named modalities and tasks.

    An example that has none of these modalities loses its labels, since it can neither be learned
    from nor be evaluated.
    """
    modalities, tasks = sorted(modalities), sorted(tasks)
    has_modality = np.any([batch.present[m] for m in modalities], axis=0)
    return Batch(
        inputs={m: batch.inputs[m] for m in modalities},
        present={m: batch.present[m] for m in modalities},
        lengths={m: batch.lengths[m] for m in modalities if m in batch.lengths},
        targets={t: batch.targets[t] for t in tasks},
        labeled={t: batch.labeled[t] & has_modality for t in tasks},
        weights={t: batch.weights[t] for t in tasks if t in batch.weights},
    )
