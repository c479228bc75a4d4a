"""The splits of an experiment, and their transfer to the devices."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from mmjax.data.checks.validate import validate_split
from mmjax.data.dataset import Arrays, Dataset, Source, select_modalities_and_tasks
from mmjax.data.pipeline import Feed, make_on_device_feed
from mmjax.data.sampling.grouped_order import SampleGroups
from mmjax.data.sampling.samplers import form_training_groups
from mmjax.data.streaming import make_streaming_feed
from mmjax.experiment import Experiment
from mmjax.types import Batch


class Splits:
    """The splits of an experiment; each is opened when first used."""

    def __init__(self, experiment: Experiment, devices: Sequence[jax.Device]) -> None:
        self.experiment, self.devices = experiment, devices
        self.feeds: dict[str, Feed] = {}
        self.encode: Callable[[str, Batch], Batch] | None = None
        """Replaces inputs of a split, which is then read as a whole."""

    def prepare(self, name: str) -> "PrepareBatch":
        """Makes the function that prepares every part of a split after it is read."""
        data, model = self.experiment.data, self.experiment.model
        return PrepareBatch(
            dataset=dataclasses.replace(data, splits={}),
            split=name,
            modalities=tuple(model.encoders),
            tasks=tuple(model.heads),
            checked=isinstance(data.splits[name], Arrays),
        )

    def feed(self, name: str) -> Feed:
        """Returns the feed that brings a split to the devices."""
        if name not in self.feeds:
            self.feeds[name] = self._open(name)
        return self.feeds[name]

    def _open(self, name: str) -> Feed:
        source: Source = self.experiment.data.splits[name]
        prepare: Callable[[Batch], Batch] = self.prepare(name)
        workers = self.experiment.workers
        if self.encode is not None:
            source = Arrays(self.encode(name, prepare(_take_all(source))))
            prepare, workers = _return_batch, 0
        if self.experiment.stream:
            return make_streaming_feed(source, self.devices, prepare, workers=workers)
        return make_on_device_feed(prepare(_take_all(source)), self.devices)

    def size(self, name: str) -> int:
        """Returns the number of examples in the split."""
        return len(self.experiment.data.splits[name])

    def groups(self) -> SampleGroups | None:
        """Returns the groups that the sampler makes of the training split; None without one."""
        e = self.experiment
        if e.sampler is None:
            return None
        return form_training_groups(e.sampler, e.data, e.model.encoders, e.model.heads)

    def example(self) -> Batch:
        """Returns a batch of one example, for its shapes."""
        return self.prepare("train")(self.experiment.data.splits["train"].take(np.arange(1)))


def _take_all(source: Source) -> Batch:
    """Returns all examples of a split; what lies in memory is not copied."""
    return source.batch if isinstance(source, Arrays) else source.take(np.arange(len(source)))


def _return_batch(batch: Batch) -> Batch:
    return batch


@dataclasses.dataclass(frozen=True)
class PrepareBatch:
    """Selects the modalities and tasks of the model, and validates values not yet validated.

    It holds no arrays, so that it can be sent to worker processes.

    Attributes:
      dataset: the data set without its splits; describes valid values.
      split: name of the split.
      modalities: modalities that the model uses.
      tasks: tasks that the model uses.
      checked: whether the check of the experiment has validated the split.
    """

    dataset: Dataset
    split: str
    modalities: tuple[str, ...]
    tasks: tuple[str, ...]
    checked: bool

    def __call__(self, batch: Batch) -> Batch:
        """Returns the part of the split, ready for the devices."""
        data = self.dataset
        if not self.checked:
            validate_split(data.name, self.split, batch, data.modalities, data.tasks)
        return select_modalities_and_tasks(batch, self.modalities, self.tasks)
