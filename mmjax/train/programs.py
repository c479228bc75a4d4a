"""An experiment made ready: its parts checked, its data placed, its programs lifted."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mmjax.data.augment import augmentation
from mmjax.data.dataset import Arrays
from mmjax.data.pipeline import replicated, share
from mmjax.data.validate import validate
from mmjax.experiment import Experiment
from mmjax.fits import check_fit, resized
from mmjax.train.evaluate import evaluate, higher_is_better
from mmjax.train.parallel import AXIS, check_divisible, eval_program, over_seeds, train_program
from mmjax.train.splits import Splits
from mmjax.train.step import init_state, make_eval_step, make_train_step
from mmjax.types import Params, TrainState


class LoopState(NamedTuple):
    """What a checkpoint holds; every array has a leading axis of seeds.

    Attributes:
      train: the training state.
      best_params: the parameters that were best on the validation split.
      best_value: their monitored metric.
      best_step: the step they stem from.
      waited: validations since then.
    """

    train: TrainState
    best_params: Params
    best_value: Float[Array, " s"]
    best_step: Int[Array, " s"]
    waited: Int[Array, " s"]

    @property
    def steps_done(self) -> int:
        """Steps behind it; all seeds march together."""
        return int(self.train.step[0])


def check(experiment: Experiment, devices: int) -> None:
    """Refuses, before anything is compiled, an experiment whose parts or data do not fit.

    Raises:
      ValueError: naming the part, its value and what would fit.
    """
    data, model = experiment.data, experiment.model
    for kind, names, known in (
        ("encoder", model.encoders, data.modalities),
        ("head", model.heads, data.tasks),
    ):
        for name in names:
            if name not in known:
                raise ValueError(
                    f"The model has the {kind} {name!r}, but the data set {data.name!r} has only "
                    f"{sorted(known)}."
                )
    for name in ("train", "validation", "test"):
        if name not in data.splits:
            raise ValueError(f"{data.name} has no split {name!r}, only {sorted(data.splits)}.")
        if not len(data.splits[name]):
            raise ValueError(f"The split {name!r} of {data.name} is empty.")
        if isinstance(source := data.splits[name], Arrays):
            validate(data.name, name, source.batch, data.modalities, data.tasks)
    rates = experiment.modality_dropout
    for what, some in (
        ("augment", experiment.augment),
        ("modality_dropout", rates if isinstance(rates, Mapping) else {}),
    ):
        for name in some:
            if name not in data.modalities:
                raise ValueError(
                    f"{what} names the modality {name!r}, but the data set {data.name!r} has only "
                    f"{sorted(data.modalities)}."
                )
    for name, encoder in model.encoders.items():
        if hasattr(encoder, "check"):
            encoder.check(data.modalities[name], name)
    for name, head in model.heads.items():
        head.check(data.tasks[name], name)
    examples = len(data.splits["train"])
    if experiment.batch_size > examples:
        raise ValueError(
            f"batch_size={experiment.batch_size} is more than the {examples} training examples."
        )
    check_divisible("batch_size", experiment.batch_size, devices)
    check_divisible("eval_batch_size", experiment.eval_batch_size, devices)
    higher_is_better(model, experiment.monitor)
    check_fit(model, resized(Splits(experiment, ()).example(), experiment.batch_size))


class Programs:
    """The compiled programs of an experiment for a number of seeds and devices."""

    def __init__(
        self, experiment: Experiment, seeds: Sequence[int], devices: Sequence[jax.Device]
    ) -> None:
        check(experiment, len(devices))
        self.experiment, self.seeds, self.devices = experiment, tuple(seeds), devices
        self.splits = Splits(experiment, devices)
        options: dict[str, Any] = {"compute_dtype": experiment.compute_dtype, "axis_name": AXIS}
        step = make_train_step(
            experiment.model,
            experiment.optimizer,
            experiment.balancer,
            augment=augmentation(experiment.augment, experiment.modality_dropout),
            diagnostics=experiment.diagnostics,
            **options,
        )
        eval_step = make_eval_step(experiment.model, **options)
        lift: dict[str, Any] = {
            "seeds": len(self.seeds),
            "devices": devices,
            "sharded": experiment.stream,
        }
        self.train = train_program(step, **lift)
        self.eval = eval_program(eval_step, **lift)
        self.maximize = higher_is_better(experiment.model, experiment.monitor)

    @property
    def examples_per_step(self) -> int:
        """Examples that one step of all seeds takes."""
        return self.experiment.batch_size * len(self.seeds)

    def init(self) -> LoopState:
        """The state before the first step, on all devices."""
        example = jax.tree.map(jnp.asarray, self.splits.example())
        e = self.experiment

        def one(key: Array) -> LoopState:
            train = init_state(e.model, e.optimizer, e.balancer, example, key)
            worst = jnp.array(-jnp.inf if self.maximize else jnp.inf)
            zero = jnp.zeros((), jnp.int32)
            return LoopState(train, train.params, worst, zero, zero)

        keys = jnp.stack([jax.random.key(seed) for seed in self.seeds])
        # Run once: optimising its many random draws would take longer than all else to compile.
        once = jax.jit(
            over_seeds(one, len(self.seeds), (0,)),
            compiler_options={"xla_backend_optimization_level": 0},
        )
        return self.place(once(keys))

    def place(self, tree: Any) -> Any:
        """Puts a copy of a tree on every device."""
        return jax.device_put(tree, replicated(self.devices))

    def evaluate(self, params: Params, split: str) -> list[dict[str, float]]:
        """Metrics of every seed's parameters on a split."""
        e = self.experiment
        return evaluate(
            e.model,
            self.eval,
            self.splits.feed(split),
            params,
            seeds=len(self.seeds),
            share=share(self.devices),
            examples=self.splits.size(split),
            batch_size=e.eval_batch_size,
            batches=e.steps_per_dispatch,
        )

    def stopped(self, state: LoopState) -> Bool[np.ndarray, " s"]:
        """Which seeds have run out of patience."""
        patience = self.experiment.patience
        return np.asarray(state.waited) >= (math.inf if patience is None else patience)

    def judge(self, state: LoopState, validation: list[dict[str, float]]) -> LoopState:
        """Takes the parameters of seeds that improved as best; a stopped seed keeps its own."""
        monitor = self.experiment.monitor
        values = [v[monitor] for v in validation]
        if np.isnan(values).any():
            raise ValueError(
                f"monitor {monitor!r} is NaN on the validation split, so no parameters can be "
                "chosen by it; give the split labels for every task that it covers, or monitor "
                "another metric."
            )
        value = jnp.array(values, jnp.float32)
        better = value > state.best_value if self.maximize else value < state.best_value
        return update_best(state, value, better & ~self.stopped(state))


@jax.jit
def update_best(state: LoopState, value: Array, better: Array) -> LoopState:
    """Replaces the best where `better`, and counts the validations without improvement."""

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(jnp.expand_dims(better, range(1, new.ndim)), new, old)

    return state._replace(
        best_params=jax.tree.map(choose, state.train.params, state.best_params),
        best_value=choose(value, state.best_value),
        best_step=choose(state.train.step, state.best_step),
        waited=jnp.where(better, 0, state.waited + 1),
    )
