"""Schedule of a run: its dispatches, validations and checkpoints, by step number."""

import dataclasses
import functools

from mmjax.data.sampling.batch_order import TrainIndexPlan
from mmjax.data.sampling.grouped_order import SampleGroups
from mmjax.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The dispatches of a training run: ranges of steps, each within one epoch.

    Attributes:
      experiment: the experiment.
      seeds: one per replica.
      examples: size of the training split.
      first: number of steps that a resumed run has completed.
      groups: those that the experiment's sampler makes.
    """

    experiment: Experiment
    seeds: tuple[int, ...]
    examples: int
    first: int = 0
    groups: SampleGroups | None = None

    @property
    def epoch_steps(self) -> int:
        """Steps per epoch; the last, incomplete batch is dropped."""
        return self.examples // self.experiment.batch_size

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.epoch_steps * self.experiment.epochs

    @functools.cached_property
    def ranges(self) -> list[tuple[int, int]]:
        """The (start, stop) of every dispatch from step `first` on."""
        size = choose_dispatch_steps(self.epoch_steps, self.experiment.steps_per_dispatch)
        ranges = []
        for end in range(self.epoch_steps, self.total + 1, self.epoch_steps):
            for start in range(end - self.epoch_steps, end, size):
                stop = min(start + size, end)
                if stop > self.first:
                    ranges.append((max(start, self.first), stop))
        return ranges

    @property
    def dispatches(self) -> TrainIndexPlan:
        """The examples of every dispatch."""
        size = self.experiment.batch_size
        return TrainIndexPlan(self.seeds, self.examples, size, tuple(self.ranges), self.groups)

    def validates_at(self, step: int) -> bool:
        """Returns whether validation and a checkpoint are due after `step` steps."""
        return step == self.total or step % (self.epoch_steps * self.experiment.eval_every) == 0


def choose_dispatch_steps(epoch_steps: int, most: int) -> int:
    """Returns the steps per dispatch: at most `most`, and a divisor of the epoch if it is large.

    With a divisor all dispatches have the same shape, so that only one program is compiled.
    """
    divisor = max(d for d in range(1, min(most, epoch_steps) + 1) if epoch_steps % d == 0)
    return divisor if 2 * divisor > min(most, epoch_steps) else min(most, epoch_steps)
