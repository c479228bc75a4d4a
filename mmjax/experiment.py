"""The definition of an experiment: data, model, balancer, optimizer, and length of training."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from mmjax.balance import Balancer, equal
from mmjax.data.augment import Augment
from mmjax.data.dataset import Dataset
from mmjax.data.modality_dropout import check_rates
from mmjax.data.sampling.samplers import Sampler
from mmjax.encoders.input_facts import apply_input_facts
from mmjax.heads.label_facts import apply_label_facts
from mmjax.model import Model
from mmjax.pretrained import LoRA, Weights
from mmjax.types import Optimizer

_MAX_INT32 = 2**31 - 1  # steps are counted in 32 bits


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that determines the result of a run, except the seed.

    Write it as a plain function under `auto_config`, so that every argument in it has a path that
    the command line can set:

        @auto_config
        def experiment() -> Experiment:
            return Experiment(data=..., model=..., optimizer=optax.adam(1e-3))

    Attributes:
      data: the data set; it must have the model's modalities and tasks, and may have more.
      model: encoders -> fusion -> sharing -> heads; encoders get what they learn from the training
        inputs, such as the edges of a `PiecewiseLinearEncoder()` without them, and heads from the
        training labels, such as the mean and scale of a `Regression()` without them.
      optimizer: any optax transformation that works with gradients, parameters and `value`, the
        loss; it includes schedules and clipping. `optax.MultiSteps` needs all labels.
      balancer: combines the tasks' losses and gradients into one gradient.
      init: {path of a part of the parameters: `mmjax.pretrained.weights` of a file}, such as
        `{"encoders_text": weights("minilm", bert_names())}`; "" is the whole model. They take the
        place of random parameters, for every seed, and of stored batch statistics.
      trainable: patterns of the paths of the parameters that train, such as ("fusion/*",
        "heads_*"), as of `fnmatch`; None is all. What is frozen has neither a gradient nor a state
        of the optimizer, and all seeds share one copy of it.
      lora: {pattern of the paths of kernels: `mmjax.pretrained.LoRA`}, such as
        `{"encoders_text/*/kernel": LoRA(rank=8)}`. These kernels are frozen, and the factors of
        their updates train, whatever `trainable` says.
      epochs: passes over the training split.
      batch_size: examples per step, over all devices.
      accumulate: number of micro-batches into which every device divides its part of a batch. The
        step is that of the whole batch, for every balancer and objective, but only one micro-batch
        at a time has activations before the heads; see docs/memory.md. Dropout draws other masks,
        and batch norms normalize each micro-batch by itself and update their averages by each.
      eval_batch_size: examples per step of evaluation, over all devices.
      eval_every: epochs between two validations, each followed by a checkpoint.
      monitor: metric that selects the best parameters on the validation split: "loss" (mean over
        tasks, lower is better), "TASK/METRIC" (such as "digit/accuracy"), or "mean/METRIC" of a
        metric that all tasks have.
      patience: number of validations without improvement before training stops; None never stops
        early.
      steps_per_dispatch: maximum number of training steps per call of the compiled program; the
        host logs and handles signals in between.
      augment: {modality: augmentation} of training examples, such as
        `{"image": shift_and_crop(2)}`; see `mmjax.data.augment`. It runs on the device.
      modality_dropout: rate at which each present modality of a training example is dropped, one
        for all or {modality: rate}; the last one is never dropped.
      sampler: gives the batches shares of classes or of tasks; see `mmjax.data.sampling.samplers`.
        None: every epoch visits the examples in a random order.
      cache_frozen: whether to compute the tokens of encoders that are entirely frozen once per
        split, instead of in every step. The results are the same; the tokens must fit in memory,
        and those encoders must have no augmentation and no dropout.
      stream: whether to load batches during training instead of keeping whole splits on the
        device. The batches are the same.
      workers: with `stream`, number of processes that load data, for data that must be decoded; 0
        uses threads. Data in memory need none.
      diagnostics: whether to log statistics of the tasks' gradients: pairwise cosines, share of
        conflicts, norms and condition number. It costs one backward pass per task.
      compute_dtype: type of activations and of the copies of the parameters that they meet; the
        parameters themselves, the losses and the sums of gradients stay float32.
      ema: decay of an exponential moving average of the parameters and batch statistics, such as
        0.999; it is validated, selected, tested and loaded in their place. None for none.
      sharding: "replicated": every device has a copy of the parameters. "fsdp": large arrays of the
        parameters, their averages, and the states of the optimizer and the balancer are split over
        the devices that train a seed, which gather parameters where they use them. The results are
        the same up to round-off.

    Example:
      >>> import optax
      >>> from mmjax.encoders import MLPEncoder
      >>> from mmjax.fusion import Concat
      >>> from mmjax.heads import Classification
      >>> Experiment(
      ...     data=Dataset("empty", {}, {}, {}),
      ...     model=Model({"sound": MLPEncoder((8,))}, Concat(), {"digit": Classification(10)}),
      ...     optimizer=optax.adam(1e-3),
      ... ).epochs
      10
    """

    data: Dataset
    model: Model
    optimizer: Optimizer
    balancer: Balancer = dataclasses.field(default_factory=equal)
    init: Mapping[str, Weights] = dataclasses.field(default_factory=dict)
    trainable: tuple[str, ...] | None = None
    lora: Mapping[str, LoRA] = dataclasses.field(default_factory=dict)
    epochs: int = 10
    batch_size: int = 64
    eval_batch_size: int = 256
    eval_every: int = 1
    monitor: str = "loss"
    patience: int | None = None
    steps_per_dispatch: int = 64
    augment: Mapping[str, Augment] = dataclasses.field(default_factory=dict)
    modality_dropout: float | Mapping[str, float] = 0.0
    cache_frozen: bool = False
    stream: bool = False
    workers: int = 0
    diagnostics: bool = False
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    sampler: Sampler | None = None
    ema: float | None = None
    sharding: Literal["replicated", "fsdp"] = "replicated"
    accumulate: int = 1

    def __post_init__(self) -> None:
        self._check_counts()
        if isinstance(self.trainable, str):
            raise ValueError(f"trainable is {self.trainable!r}; give a tuple of patterns.")
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}; it must be 0 or more.")
        _check_optimizer_type(self.optimizer)
        if self.ema is not None and not (self.ema > 0 and self.ema < 1):
            raise ValueError(f"ema is {self.ema}; it must be between 0 and 1, such as 0.999.")
        if self.sharding not in ("replicated", "fsdp"):
            raise ValueError(f'sharding is {self.sharding!r}; it must be "replicated" or "fsdp".')
        check_rates("modality_dropout", self.modality_dropout)
        if not isinstance(self.sampler, Sampler | None):
            raise ValueError(
                f"sampler is {self.sampler!r}, which is not a sampler; use data.Stratified, "
                "data.ClassBalanced or data.TaskMixture."
            )
        model = apply_label_facts(apply_input_facts(self.model, self.data), self.data)
        object.__setattr__(self, "model", model)

    def _check_counts(self) -> None:
        """Raises ValueError unless all counts are positive."""
        positive = ["epochs", "batch_size", "accumulate"]
        positive += ["eval_batch_size", "eval_every", "steps_per_dispatch"]
        for name in positive + ["patience"] * (self.patience is not None):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
            if value > _MAX_INT32:
                raise ValueError(f"{name} is {value}; it must be at most {_MAX_INT32}.")

    @property
    def has_frozen(self) -> bool:
        """Whether some parameters do not train."""
        return self.trainable is not None or bool(self.lora)


def _check_optimizer_type(optimizer: Any) -> None:
    """Refuses what is not an optimizer, such as a learning rate or a function that makes one."""
    if callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None)):
        return
    fix = "pass one, such as optax.adam(1e-3)"
    if isinstance(optimizer, float | int):
        fix = f"pass one with this learning rate, such as optax.adam({optimizer})"
    elif callable(optimizer):
        fix = f"call it, as in optax.{getattr(optimizer, '__name__', 'adam')}(1e-3)"
    raise ValueError(f"optimizer is {optimizer!r}, which is not an optax optimizer; {fix}.")
