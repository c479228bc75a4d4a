"""A case: one model at one batch size, on mmjax's side and on PyTorch's."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mmjax.balance import Balancer, equal
from mmjax.model import Model
from mmjax.train.steps.state import init_frozen_variables, init_state
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch, Optimizer, TrainState, Variables

BATCH_COUNT = 8  # different batches, which both sides visit in turn; one dispatch when scanned

RunSteps = Callable[[int], None]  # runs that many training steps and waits for the last one


class MmjaxSide(NamedTuple):
    """mmjax's side of a case.

    Attributes:
      model: the model.
      optimizer: its optimizer.
      balancer: its balancer.
      batches: the batches to train on, as NumPy arrays.
      trainable: patterns of the paths of the parameters that train; None is all.
    """

    model: Model
    optimizer: Optimizer
    balancer: Balancer = equal()
    batches: Sequence[Batch] = ()
    trainable: Sequence[str] | None = None

    def init(self, key: Any) -> tuple[TrainState, Variables | None]:
        """Returns a fresh training state, and the variables that do not train, if there are any."""
        parts = self.model, self.optimizer, self.balancer, self.batches[0]
        if self.trainable is None:
            return init_state(*parts, key), None
        options: Any = {"trainable": self.trainable}
        frozen = init_frozen_variables(self.model, self.batches[0], **options)
        return init_state(*parts, key, **options), frozen

    def step(self, axis_name: str | None = None) -> Any:
        """Returns the pure training step on what `init` returns."""
        train = make_train_step(self.model, self.optimizer, self.balancer, axis_name=axis_name)

        def step(carry: tuple[TrainState, Variables | None], batch: Batch) -> Any:
            state, metrics = train(carry[0], batch, carry[1])
            return (state, carry[1]), metrics

        return step


class Case(NamedTuple):
    """One row of the table.

    Attributes:
      group: number of its group of cases.
      name: its unique name.
      make_mmjax: makes mmjax's side.
      make_torch: batches -> PyTorch's side; it imports torch only when called.
      memory: whether the peak memory of both sides is measured too.
      bound: whether PyTorch's side does only a part of the method, so that its time is a bound.
    """

    group: int
    name: str
    make_mmjax: Callable[[], MmjaxSide]
    make_torch: Callable[[Sequence[Batch]], RunSteps]
    memory: bool = False
    bound: bool = False


def make_random_batches(
    inputs: dict[str, tuple[int, ...]],
    tasks: Sequence[str],
    size: int,
    *,
    classes: int = 10,
    count: int = BATCH_COUNT,
) -> list[Batch]:
    """Makes complete batches of noise, whose tasks are classifications.

    Args:
      inputs: {modality: shape of one example}.
      tasks: names of the tasks.
      size: examples per batch.
      classes: number of classes of each task.
      count: number of batches.
    """
    draw = np.random.default_rng(0)
    everywhere = np.ones(size, bool)
    return [
        Batch(
            inputs={m: draw.random((size, *s), np.float32) for m, s in inputs.items()},
            present=dict.fromkeys(inputs, everywhere),
            lengths={},
            targets={t: draw.integers(0, classes, size).astype(np.int32) for t in tasks},
            labeled=dict.fromkeys(tasks, everywhere),
        )
        for _ in range(count)
    ]


def stack_batches(batches: Sequence[Batch]) -> Batch:
    """Stacks the batches along a new leading axis."""
    return jax.tree.map(lambda *x: np.stack(x), *batches)


def make_side(
    model: Model, optimizer: Optimizer, batches: Sequence[Batch], balancer: Balancer | None = None
) -> MmjaxSide:
    """Returns mmjax's side, with equal weights by default."""
    return MmjaxSide(model, optimizer, balancer or equal(), batches)
