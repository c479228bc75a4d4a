"""A data set: what its modalities and tasks are, and where the examples of each split come from."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from mmjax.types import Batch


class Modality(NamedTuple):
    """One kind of input.

    Attributes:
      shape: shape of one example; for a sequence the first axis is time, padded to the longest.
      sequence: whether the first axis is time with a true length an example.
      vocabulary: of text, what each integer token stands for, from 0 on; () is not known.
    """

    shape: tuple[int, ...]
    sequence: bool = False
    vocabulary: tuple[str, ...] = ()

    def describe(self) -> str:
        """Describes the shape of an example."""
        sizes = " x ".join(map(str, self.shape)) or "a number"
        return f"sequence, up to {sizes}" if self.sequence else sizes


class Task(NamedTuple):
    """One thing to predict.

    Attributes:
      kind: "classification" (target: class index), "multilabel" (target: 0 or 1 a class),
        "regression" (target: float), "ordinal" (target: index of a class in an order), "sequence"
        (target: class index a step, or -1), "segmentation" (target: class index a pixel, or -1) or
        "depth" (target: positive float a pixel, or 0); -1 and 0 are places without a label.
      classes: names of the classes, for all kinds but regression and depth.
      unit: unit of a regression's or a depth's target.
      shape: of one example's target, for the last three kinds: (time,) or (rows, columns).
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


@runtime_checkable
class Source(Protocol):
    """Random access to the examples of one split."""

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> Batch:
        """The examples at `indices`, in that order, as NumPy arrays."""
        ...


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A source that lies in memory whole."""

    batch: Batch

    def __len__(self) -> int:
        return self.batch.size

    def take(self, indices: np.ndarray) -> Batch:
        """The examples at `indices`, in that order."""
        return Batch(*({k: v[indices] for k, v in part.items()} for part in self.batch))


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A named data set with its splits, usually "train", "validation" and "test".

    Attributes:
      name: of the data set.
      modalities: its kinds of input, by name.
      tasks: what there is to predict, by name.
      splits: where the examples of each split come from.
      facts: what else is known of the data, such as the best accuracy that there can be.
    """

    name: str
    modalities: Mapping[str, Modality]
    tasks: Mapping[str, Task]
    splits: Mapping[str, Source]
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def select(batch: Batch, modalities: Iterable[str], tasks: Iterable[str]) -> Batch:
    """Keeps the named modalities and tasks.

    An example that has none of the kept modalities loses its labels: there is nothing to learn
    from it, or to be judged by.
    """
    modalities, tasks = sorted(modalities), sorted(tasks)
    some = np.any([batch.present[m] for m in modalities], axis=0)
    return Batch(
        inputs={m: batch.inputs[m] for m in modalities},
        present={m: batch.present[m] for m in modalities},
        lengths={m: batch.lengths[m] for m in modalities if m in batch.lengths},
        targets={t: batch.targets[t] for t in tasks},
        labeled={t: batch.labeled[t] & some for t in tasks},
    )
