"""The splits of an experiment on their way to the devices."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from mmjax.data.dataset import Arrays, Dataset, Source, select
from mmjax.data.pipeline import Feed, on_device
from mmjax.data.streaming import streamed
from mmjax.data.validate import validate
from mmjax.experiment import Experiment
from mmjax.types import Batch


class Splits:
    """The splits of an experiment; each is opened when first used."""

    def __init__(self, experiment: Experiment, devices: Sequence[jax.Device]) -> None:
        self.experiment, self.devices = experiment, devices
        self.feeds: dict[str, Feed] = {}

    def prepare(self, name: str) -> "Prepare":
        """What becomes of every part of a split that is read."""
        data, model = self.experiment.data, self.experiment.model
        return Prepare(
            dataset=dataclasses.replace(data, splits={}),
            split=name,
            modalities=tuple(model.encoders),
            tasks=tuple(model.heads),
            checked=isinstance(data.splits[name], Arrays),
        )

    def feed(self, name: str) -> Feed:
        """The way of a split to the devices."""
        if name not in self.feeds:
            self.feeds[name] = self._open(name)
        return self.feeds[name]

    def _open(self, name: str) -> Feed:
        source: Source = self.experiment.data.splits[name]
        prepare, workers = self.prepare(name), self.experiment.workers
        if self.experiment.stream:
            return streamed(source, self.devices, prepare, workers=workers)
        return on_device(prepare(source.take(np.arange(len(source)))), self.devices)

    def size(self, name: str) -> int:
        """Number of examples in a split."""
        return len(self.experiment.data.splits[name])

    def example(self) -> Batch:
        """A batch of one, for its shapes."""
        return self.prepare("train")(self.experiment.data.splits["train"].take(np.arange(1)))


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Keeps what the model uses of a part of a split, and validates it if `check` has not.

    It holds no more than that, so that worker processes can be given it.

    Attributes:
      dataset: what the modalities and tasks promise; without its splits.
      split: the split's name.
      modalities: those that the model uses.
      tasks: those that the model uses.
      checked: whether `check` has validated the split.
    """

    dataset: Dataset
    split: str
    modalities: tuple[str, ...]
    tasks: tuple[str, ...]
    checked: bool

    def __call__(self, batch: Batch) -> Batch:
        """The part, ready for the devices."""
        data = self.dataset
        if not self.checked:
            validate(data.name, self.split, batch, data.modalities, data.tasks)
        return select(batch, self.modalities, self.tasks)
