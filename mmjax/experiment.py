"""What an experiment is: data, model, balancer, optimizer, and how long to train."""

import dataclasses
from typing import Literal

from mmjax.balance import Balancer, equal
from mmjax.data.dataset import Dataset
from mmjax.model import Model
from mmjax.types import Optimizer


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides a run's result, but for the seed.

    Write it as a plain function under `auto_config`, so that every argument in it has a path that
    the command line can set:

        @auto_config
        def experiment() -> Experiment:
            return Experiment(data=..., model=..., optimizer=optax.adam(1e-3))

    Attributes:
      data: the data set; it must hold the model's modalities and tasks, and may hold more.
      model: encoders -> fusion -> sharing -> heads.
      optimizer: any optax transformation; schedules, clipping and accumulation are its business.
      balancer: how the tasks' losses become one gradient.
      epochs: passes over the training split.
      batch_size: examples a step, over all devices together.
      eval_batch_size: examples a step of evaluation, over all devices together.
      eval_every: epochs between two validations, each followed by a checkpoint.
      monitor: what selects the best parameters on the validation split: "loss" (mean over tasks,
        lower is better) or "TASK/METRIC" (such as "digit/accuracy").
      patience: stop after so many validations without improvement; None trains to the end.
      steps_per_dispatch: most training steps that one program runs before the host hears of it.
      stream: whether batches are fetched while training instead of the whole training split
        lying on the device. The batches are the same.
      compute_dtype: type of activations and of the parameters' copies that meet them; the
        parameters themselves, the losses and the gradients' sums stay float32.
    """

    data: Dataset
    model: Model
    optimizer: Optimizer
    balancer: Balancer = dataclasses.field(default_factory=equal)
    epochs: int = 10
    batch_size: int = 64
    eval_batch_size: int = 256
    eval_every: int = 1
    monitor: str = "loss"
    patience: int | None = None
    steps_per_dispatch: int = 64
    stream: bool = False
    compute_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        positive = ["epochs", "batch_size", "eval_batch_size", "eval_every", "steps_per_dispatch"]
        for name in positive + ["patience"] * (self.patience is not None):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
