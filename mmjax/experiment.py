"""What an experiment is: data, model, balancer, optimizer, and how long to train."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from mmjax.balance import Balancer, equal
from mmjax.data.augment import Augment
from mmjax.data.dataset import Dataset
from mmjax.data.modality_dropout import check_rates
from mmjax.model import Model
from mmjax.types import Optimizer

LARGEST = 2**31 - 1  # steps are counted in 32 bits


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
        lower is better), "TASK/METRIC" (such as "digit/accuracy"), or "mean/METRIC" of a metric
        that all tasks have.
      patience: stop after so many validations without improvement; None trains to the end.
      steps_per_dispatch: most training steps that one program runs before the host hears of it.
      augment: {modality: augmentation} of training examples, such as
        `{"image": shift_and_crop(2)}`; see `mmjax.data.augment`. It runs on the device.
      modality_dropout: rate at which a training example loses a modality that it has, one for all
        or {modality: rate}; it never loses the last one.
      stream: whether batches are fetched while training instead of whole splits lying on the
        device. The batches are the same.
      workers: with `stream`, how many processes fetch, for data that must be decoded; 0 leaves it
        to threads. Data that lie in memory need none.
      diagnostics: whether the log of training tells of the tasks' gradients too: pairwise cosines,
        share of conflicts, norms and condition number. It costs a backward pass a task.
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
    augment: Mapping[str, Augment] = dataclasses.field(default_factory=dict)
    modality_dropout: float | Mapping[str, float] = 0.0
    stream: bool = False
    workers: int = 0
    diagnostics: bool = False
    compute_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        positive = ["epochs", "batch_size", "eval_batch_size", "eval_every", "steps_per_dispatch"]
        for name in positive + ["patience"] * (self.patience is not None):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
            if value > LARGEST:
                raise ValueError(f"{name} is {value}; it must be at most {LARGEST}.")
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}; it must be 0 or more.")
        check_rates("modality_dropout", self.modality_dropout)
