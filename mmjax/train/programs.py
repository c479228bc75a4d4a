"""An experiment made ready: its parts checked, its data placed, its programs lifted."""

import functools
import math
import threading
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mmjax.data.dataset import Arrays
from mmjax.data.pipeline import share
from mmjax.data.validate import validate
from mmjax.data.value_ranges import check_same_scale, value_range
from mmjax.experiment import Experiment
from mmjax.flops import flops
from mmjax.model_check import check_fit
from mmjax.model_parts import resized
from mmjax.train.devices import choose_devices
from mmjax.train.evaluation import evaluate, higher_is_better
from mmjax.train.parallel import (
    at_once,
    check_divisible,
    eval_program,
    over_seeds,
    placement,
    train_program,
)
from mmjax.train.replica_steps import lane_eval_step, lane_step
from mmjax.train.splits import Splits
from mmjax.train.step import init_state
from mmjax.train.traced_hparams import Sweep, Values, check_traceable, one_for_all
from mmjax.types import Batch, Params, TrainState

# At level 3 some loops of a CPU's steps take three times as long as at 2, LeNet's whole step on one
# thread a fifth longer, and compiling takes a fifth longer.
COMPILER_OPTIONS = {"cpu": {"xla_backend_optimization_level": 2}}
THREAD = "mmjax-compile"
# XLA's older emitters, which JAX 0.12 no longer has, compile faster.
RUN_ONCE = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


@functools.cache
def is_known_option(name: str, value: Any) -> bool:
    """Tells whether the installed XLA has a compiler option, by compiling a constant with it."""
    try:
        jax.jit(lambda: 0).lower().compile({name: value})
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return False
    return True


def keep_known_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those compiler options that the installed XLA has: it refuses unknown ones."""
    return {name: value for name, value in options.items() if is_known_option(name, value)}


class LoopState(NamedTuple):
    """What a checkpoint holds; every array has a leading axis of lanes, one a seed.

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
    # Sources that read when asked were compared when they were made.
    batches = {s: v.batch for s, v in data.splits.items() if isinstance(v, Arrays)}
    for name in model.encoders:
        check_same_scale(
            data.name,
            name,
            {
                s: value_range(np.asarray(b.inputs[name]), b.present[name])
                for s, b in batches.items()
            },
            sequence=data.modalities[name].sequence,
        )
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
        if not hasattr(head, "check"):
            raise ValueError(f"model.heads.{name} is a {type(head).__name__}, which is not a head.")
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
    """The compiled programs of an experiment for a number of lanes and devices.

    A lane is one training: a seed, and with a sweep numbers of its own.

    Args:
      experiment: that of the first lane, which decides all that is no number of the sweep.
      seeds: one a lane; lanes of different numbers may have the same one.
      devices: where the lanes run; by default as `choose_devices` says.
      sweep: the numbers in which lanes differ.

    Raises:
      ValueError: where parts or data do not fit, or a number of the sweep cannot be traced.
    """

    def __init__(
        self,
        experiment: Experiment,
        seeds: Sequence[int],
        devices: Sequence[jax.Device] | None = None,
        sweep: Sweep | None = None,
    ) -> None:
        devices = devices or choose_devices(experiment)
        check(experiment, len(devices))
        self.experiment, self.seeds, self.devices = experiment, tuple(seeds), devices
        self.splits = Splits(experiment, devices)
        self.sweep = sweep or one_for_all(experiment)
        self.experiments = self.sweep.experiments(len(self.seeds))
        self.maximize = higher_is_better(experiment.model, experiment.monitor)
        self.example = self.splits.example()
        check_traceable(self.sweep, self.trace)
        lift: dict[str, Any] = {
            "seeds": len(self.seeds),
            "devices": devices,
            "sharded": experiment.stream,
        }
        self.placement = placement(**lift)
        self.lanes_at_once = at_once(**lift)
        self.values = self.place(self.sweep.arrays())
        self.train_program = train_program(lane_step(self.sweep), **lift)
        self.compiled: dict[Any, Any] = {}
        self.eval_program = eval_program(lane_eval_step(self.sweep), **lift)

    @property
    def examples_per_step(self) -> int:
        """Examples that one step of all lanes takes."""
        return self.experiment.batch_size * len(self.seeds)

    @functools.cached_property
    def initial(self) -> jax.stages.Traced:
        """The program that makes the state before the first step, traced."""
        # Run once: optimising its many random draws would take longer than all else to compile.
        once = jax.jit(
            over_seeds(self.start(self.sweep), len(self.seeds), (0, 0), self.devices[0].platform),
            compiler_options=keep_known_options(RUN_ONCE),
        )
        return once.trace(*self.origin())

    def origin(self) -> tuple[Values, Array]:
        """What every lane starts from: its numbers and its key."""
        return self.sweep.arrays(), jnp.stack([jax.random.key(seed) for seed in self.seeds])

    @functools.cached_property
    def abstract_state(self) -> LoopState:
        """Types, shapes and placement of a state."""
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.placement),
            self.initial.out_info,
        )

    def init(self) -> LoopState:
        """The state before the first step, on all devices."""
        return self.place(self.initial.lower().compile()(*self.origin()))

    def begin(self, data: Batch, indices: Any) -> LoopState:
        """What `init` gives, while the training program for dispatches of these shapes compiles."""
        initial = start_in_thread(self.initial.lower().compile)
        self.compile(data, indices)
        return self.place(initial.result()(*self.origin()))

    def train(
        self, state: TrainState, data: Batch, indices: Any
    ) -> tuple[TrainState, Mapping[str, Any]]:
        """Many steps in one dispatch; the state is donated, and metrics are [lanes, steps]."""
        alone = jax.process_count() == 1
        program = self.compile(data, indices) if alone else self.train_program
        (self.values, state), metrics = program((self.values, state), data, indices)
        return state, metrics

    def compile(self, data: Batch, indices: Any) -> Any:
        """The training program for dispatches of these shapes, compiled once.

        Of several processes each passes the shards of its own devices, which `pmap` joins but a
        compiled program does not take; there it serves to be looked at, and is compiled as `pmap`
        does it, which joins no shapes without values.
        """
        key = shapes(data, indices)
        if key not in self.compiled:
            alone = jax.process_count() == 1
            platform = self.devices[0].platform
            options = keep_known_options(COMPILER_OPTIONS.get(platform, {})) if alone else None
            carry = self.values, (self.abstract_state if alone else self.init()).train
            lowered = self.train_program.lower(carry, data, indices)
            self.compiled[key] = start_in_thread(lambda: lowered.compile(options)).result()
        return self.compiled[key]

    def peak_bytes(self, data: Batch, indices: Any) -> int:
        """Memory that `train` needs on one device, its arguments included."""
        found = self.compile(data, indices).memory_analysis()
        sizes = ("argument_size", "output_size", "temp_size")
        total = sum(getattr(found, f"{size}_in_bytes", 0) for size in sizes)
        return total - getattr(found, "alias_size_in_bytes", 0)

    def start(self, sweep: Sweep) -> Callable[[Values, Array], LoopState]:
        """The function that makes one lane's state before the first step."""
        example = jax.device_put(self.example)
        # `one` must not hold `self`, which holds its program: a cycle would outlive `fit`.
        worst_value = -math.inf if self.maximize else math.inf

        def one(values: Values, key: Array) -> LoopState:
            e = sweep.traced(values)
            train = init_state(e.model, e.optimizer, e.balancer, example, key)
            worst = jnp.array(worst_value)
            zero = jnp.zeros((), jnp.int32)
            return LoopState(train, train.params, worst, zero, zero)

        return one

    def trace(self, sweep: Sweep) -> tuple[Any, Any, Batch]:
        """A lane's training step with the shapes of its arguments; nothing is computed."""
        values = {path: jnp.zeros(()) for path in sweep.values}
        state = jax.eval_shape(self.start(sweep), values, jax.random.key(0)).train
        step = lane_step(sweep, axis_name=None)
        arguments = (values, state), resized(self.example, self.experiment.batch_size)
        jax.eval_shape(step, *arguments)
        return step, *arguments

    def flops(self) -> int:
        """Floating-point operations of one lane's training step; see `mmjax.flops`.

        Loops of unknown length, as solvers have them, count as if they ran once.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return flops(*self.trace(one_for_all(self.experiment)))

    def place(self, tree: Any) -> Any:
        """Puts a tree with a leading axis of lanes on the devices."""
        return jax.device_put(tree, self.placement)

    def evaluate(self, params: Params, split: str) -> list[dict[str, float]]:
        """Metrics of every lane's parameters on a split."""
        e = self.experiment
        return evaluate(
            [one.model for one in self.experiments],
            self.eval_program,
            self.splits.feed(split),
            (self.values, params),
            share=share(self.devices),
            examples=self.splits.size(split),
            batch_size=e.eval_batch_size,
            batches=e.steps_per_dispatch,
        )

    def stopped(self, state: LoopState) -> Bool[np.ndarray, " s"]:
        """Which lanes have run out of patience."""
        patience = self.experiment.patience
        return np.asarray(state.waited) >= (math.inf if patience is None else patience)

    def judge(
        self,
        state: LoopState,
        validation: list[dict[str, float]],
        failed: Collection[int] = (),
    ) -> LoopState:
        """Takes the parameters of lanes that improved as best; a stopped lane keeps its own.

        Args:
          state: the state.
          validation: metrics of each lane.
          failed: lanes that are no longer finite; they keep their best.
        """
        monitor = self.experiment.monitor
        values = [v[monitor] for v in validation]
        if any(math.isnan(v) and i not in failed for i, v in enumerate(values)):
            raise ValueError(
                f"monitor {monitor!r} is NaN on the validation split, so no parameters can be "
                "chosen by it; give the split labels for every task that it covers, or monitor "
                "another metric."
            )
        value = jnp.array(values, jnp.float32)
        better = value > state.best_value if self.maximize else value < state.best_value
        return update_best(state, value, better & ~self.stopped(state))


def start_in_thread(function: Callable[[], Any]) -> Future:
    """Calls a function in a thread of its own, which nothing waits for when the process ends.

    A signal reaches a main thread that waits for the result at once, but not one that is inside
    XLA's compiler, which may take minutes.
    """
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=THREAD, daemon=True).start()
    return future


def shapes(data: Batch, indices: Any) -> tuple[tuple[int, ...], ...]:
    """What tells the arguments of one dispatch from those of another."""
    return tuple(np.shape(x) for x in jax.tree.leaves((data, indices)))


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
