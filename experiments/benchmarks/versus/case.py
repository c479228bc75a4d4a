"""What is compared: one model on one batch size, on mmjax's side and on PyTorch's."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mmjax.balance import Balancer, equal
from mmjax.model import Model
from mmjax.train.state import init_state
from mmjax.train.step import make_train_step
from mmjax.types import Batch, Optimizer, TrainState

BATCHES = 8  # different ones, which both sides visit in turn; one dispatch of the scanned step

Run = Callable[[int], None]  # makes that many training steps and waits for the last one


class Ours(NamedTuple):
    """mmjax's side of a case.

    Attributes:
      model: the model.
      optimizer: its optimizer.
      balancer: how the tasks are balanced.
      batches: what it trains on, as NumPy arrays.
    """

    model: Model
    optimizer: Optimizer
    balancer: Balancer
    batches: Sequence[Batch]

    def init(self, key: Any) -> TrainState:
        """A fresh training state."""
        return init_state(self.model, self.optimizer, self.balancer, self.batches[0], key)

    def step(self, axis_name: str | None = None) -> Any:
        """The pure training step."""
        return make_train_step(self.model, self.optimizer, self.balancer, axis_name=axis_name)


class Case(NamedTuple):
    """One line of the table.

    Attributes:
      group: its number.
      name: what it is, in few words; no other case has the same.
      ours: makes mmjax's side.
      plain: batches -> PyTorch's side; it imports torch only when called.
      memory: whether the peak memory of both sides is measured too.
      bound: whether PyTorch's side does less than the method asks for.
    """

    group: int
    name: str
    ours: Callable[[], Ours]
    plain: Callable[[Sequence[Batch]], Run]
    memory: bool = False
    bound: bool = False


def random_batches(
    inputs: dict[str, tuple[int, ...]],
    tasks: Sequence[str],
    size: int,
    *,
    classes: int = 10,
    count: int = BATCHES,
) -> list[Batch]:
    """Batches of noise, complete, whose tasks are classifications.

    Args:
      inputs: {modality: shape of one example}.
      tasks: names of the tasks.
      size: examples in a batch.
      classes: number of classes of each task.
      count: how many batches.
    """
    draw = np.random.default_rng(0)
    here = np.ones(size, bool)
    return [
        Batch(
            inputs={m: draw.random((size, *s), np.float32) for m, s in inputs.items()},
            present=dict.fromkeys(inputs, here),
            lengths={},
            targets={t: draw.integers(0, classes, size).astype(np.int32) for t in tasks},
            labeled=dict.fromkeys(tasks, here),
        )
        for _ in range(count)
    ]


def stacked(batches: Sequence[Batch]) -> Batch:
    """The batches as one tree with a leading axis."""
    return jax.tree.map(lambda *x: np.stack(x), *batches)


def complete(
    model: Model, optimizer: Optimizer, batches: Sequence[Batch], balancer: Balancer | None = None
) -> Ours:
    """Mmjax's side; equal weights unless said otherwise."""
    return Ours(model, optimizer, balancer or equal(), batches)
