"""The compiled programs of an experiment for a number of replicas and devices.

A replica is one training inside of a program: one seed and, with a `Sweep`, values of its own for
some hyperparameters.
"""

import functools
import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from mmjax.data.pipeline import compute_process_share
from mmjax.experiment import Experiment
from mmjax.inspection.flops import count_flops
from mmjax.inspection.model_parts import make_batch_shapes
from mmjax.model import Model
from mmjax.train.evaluation import (
    SplitStatistics,
    collect_statistics,
    is_higher_better,
    summarize_replicas,
)
from mmjax.train.experiment_check import check_experiment
from mmjax.train.frozen_tokens import (
    drop_encoders,
    encode_batch,
    encode_split,
    find_frozen_encoders,
    replace_encoders,
)
from mmjax.train.hardware.compilation import (
    COMPILER_OPTIONS,
    RUN_ONCE_OPTIONS,
    keep_known_options,
    start_in_thread,
)
from mmjax.train.hardware.devices import choose_devices
from mmjax.train.hardware.parallel import (
    count_concurrent_replicas,
    make_constant_sharding,
    make_eval_program,
    make_state_sharding,
    make_train_program,
    map_over_replicas,
)
from mmjax.train.splits import Splits
from mmjax.train.steps.initial_variables import load_initial_weights, trace_variables
from mmjax.train.steps.replica_steps import make_replica_eval_step, make_replica_train_step
from mmjax.train.steps.state import (
    LoopState,
    init_frozen_variables,
    init_loop_state,
    init_state,
    update_best_params,
)
from mmjax.train.traced_hparams import HparamValues, Sweep, check_traceable, make_constant_sweep
from mmjax.types import Batch, TrainState, Variables


class Programs:
    """The programs of an experiment: initialization, training, evaluation.

    Args:
      experiment: that of the first replica, which decides everything that the sweep does not.
      seeds: one per replica; replicas with different hyperparameters may have the same seed.
      devices: where the replicas run; by default as `choose_devices` says.
      sweep: hyperparameters in which the replicas differ.
      checked: whether `check_experiment` has accepted the experiment for these devices already.

    Raises:
      ValueError: if parts or data do not fit, or a hyperparameter of the sweep cannot be traced.
    """

    def __init__(
        self,
        experiment: Experiment,
        seeds: Sequence[int],
        devices: Sequence[jax.Device] | None = None,
        sweep: Sweep | None = None,
        *,
        checked: bool = False,
    ) -> None:
        devices = devices or choose_devices(experiment)
        if not checked:
            check_experiment(experiment, len(devices))
        self.experiment, self.seeds, self.devices = experiment, tuple(seeds), devices
        self.splits = Splits(experiment, devices)
        self.sweep = sweep or make_constant_sweep(experiment)
        self.experiments = self.sweep.experiments(len(self.seeds))
        self.maximize = is_higher_better(experiment.model, experiment.monitor)
        self.example = self.splits.example()
        self.cached = self._find_cached()
        self.step_sweep = self._replace_cached(self.sweep)
        if self.cached:
            self.splits.encode = self._encode_split
        check_traceable(self.sweep, self.trace_step)
        layout: dict[str, Any] = {
            "replicas": len(self.seeds),
            "devices": devices,
            "sharded": experiment.stream,
        }
        self.placement = make_state_sharding(**layout)
        self.constant_placement = make_constant_sharding(**layout)
        self.concurrent_replicas = count_concurrent_replicas(**layout)
        self.values = self.place(self.sweep.arrays())
        options = layout | {"constants": int(experiment.has_frozen)}
        self.train_program = make_train_program(make_replica_train_step(self.step_sweep), **options)
        self.compiled: dict[Any, Any] = {}
        self.eval_program = make_eval_program(make_replica_eval_step(self.step_sweep), **options)

    @property
    def models(self) -> list[Model]:
        """The model of every replica."""
        return [experiment.model for experiment in self.experiments]

    @property
    def examples_per_step(self) -> int:
        """Number of examples per step, over all replicas."""
        return self.experiment.batch_size * len(self.seeds)

    @functools.cached_property
    def init_program(self) -> jax.stages.Traced:
        """The program that makes the state before the first step, traced."""
        return self._trace_init(self.given)

    def _trace_init(self, given: Variables) -> jax.stages.Traced:
        init = map_over_replicas(
            self.make_init(self.sweep), len(self.seeds), (0, 0, None), self.devices[0].platform
        )
        # It runs once: optimizing its many random draws would take longer than all other programs.
        return jax.jit(init, compiler_options=keep_known_options(RUN_ONCE_OPTIONS)).trace(
            *self.init_args(given)
        )

    def init_args(self, given: Variables) -> tuple[HparamValues, Array, Variables]:
        """Returns the arguments of `init_program`: hyperparameters, keys and given variables."""
        keys = jnp.stack([jax.random.key(seed) for seed in self.seeds])
        return self.sweep.arrays(), keys, given

    @functools.cached_property
    def given(self) -> Variables:
        """The variables that `Experiment.init` reads from files, the same for every replica."""
        init = self.experiment.init
        return load_initial_weights(init, self.variable_shapes) if init else {}

    @functools.cached_property
    def variable_shapes(self) -> Variables:
        """The shapes of the model's variables."""
        return trace_variables(self.experiment.model, self.example)

    @functools.cached_property
    def abstract_state(self) -> LoopState:
        """Types, shapes and placement of a state; no weight file is read for them."""
        traced = self._trace_init({}) if self.experiment.init else self.init_program
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.placement),
            traced.out_info,
        )

    @functools.cached_property
    def frozen(self) -> Variables | None:
        """What does not train, one copy for all replicas; None if everything does.

        `fit` and `evaluate_best` replace it by what the run stored.
        """
        if not self.experiment.has_frozen:
            return None
        make = jax.jit(self._make_frozen, compiler_options=keep_known_options(RUN_ONCE_OPTIONS))
        return jax.device_put(make(self.given), self.constant_placement)

    @functools.cached_property
    def abstract_frozen(self) -> Variables | None:
        """Types, shapes and placement of `frozen`; no weight file is read for them."""
        if not self.experiment.has_frozen:
            return None
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.constant_placement),
            jax.eval_shape(self._make_frozen, {}),
        )

    def _make_frozen(self, given: Variables) -> Variables:
        e = self.experiment
        options: Any = {"given": given, "trainable": e.trainable, "lora": e.lora}
        return init_frozen_variables(e.model, self.example, **options)

    @property
    def constants(self) -> tuple[Variables, ...]:
        """The programs' last arguments."""
        return () if self.frozen is None else (drop_encoders(self.frozen, self.cached),)

    def _find_cached(self) -> list[str]:
        """Lists the modalities whose tokens are computed once."""
        e = self.experiment
        return find_frozen_encoders(e, self.variable_shapes) if e.cache_frozen else []

    def _replace_cached(self, sweep: Sweep) -> Sweep:
        """Returns a sweep of experiments whose cached encoders take tokens."""
        cached = self.cached
        if not cached:
            return sweep
        return sweep._replace(build=lambda numbers: replace_encoders(sweep.build(numbers), cached))

    def _encode_split(self, name: str, batch: Batch) -> Batch:
        """Replaces the inputs of cached encoders by their tokens."""
        assert self.frozen is not None
        train = name == "train"
        return encode_split(self.experiment, self.cached, self.frozen, batch, train=train)

    def init(self) -> LoopState:
        """Returns the state before the first step, on all devices."""
        return self.place(self.init_program.lower().compile()(*self.init_args(self.given)))

    def compile_and_init(self, data: Batch, indices: Any) -> LoopState:
        """Returns the state before the first step; meanwhile the training program compiles.

        Args:
          data: of the first dispatch.
          indices: of the first dispatch.
        """
        init = start_in_thread(self.init_program.lower().compile)
        self.compile(data, indices)
        return self.place(init.result()(*self.init_args(self.given)))

    def train(
        self, state: TrainState, data: Batch, indices: Any
    ) -> tuple[TrainState, Mapping[str, Any]]:
        """Runs many steps in one dispatch; the state is donated, metrics are [replicas, steps]."""
        alone = jax.process_count() == 1
        program = self.compile(data, indices) if alone else self.train_program
        (self.values, state), metrics = program(
            (self.values, state), data, indices, *self.constants
        )
        return state, metrics

    def compile(self, data: Batch, indices: Any) -> Any:
        """Returns the training program for dispatches of these shapes, compiled once.

        In a run of several processes each one passes the shards of its own devices, which `pmap`
        joins, but a compiled program does not take. There the result is for inspection only, and is
        compiled from arrays, since `pmap` cannot join shapes.
        """
        key = _get_shapes(data, indices)
        if key not in self.compiled:
            alone = jax.process_count() == 1
            options, state = None, self.abstract_state
            if alone:
                platform = self.devices[0].platform
                options = keep_known_options(COMPILER_OPTIONS.get(platform, {}))
            else:
                state = self.init()
            lowered = self.train_program.lower(
                (self.values, state.train), data, indices, *self.constants
            )
            self.compiled[key] = start_in_thread(lambda: lowered.compile(options)).result()
        return self.compiled[key]

    def peak_bytes(self, data: Batch, indices: Any) -> int:
        """Returns the memory that `train` needs on one device, its arguments included."""
        analysis = self.compile(data, indices).memory_analysis()
        sizes = ("argument_size", "output_size", "temp_size")
        total = sum(getattr(analysis, f"{size}_in_bytes", 0) for size in sizes)
        # Donated arguments and outputs are the same memory.
        return total - getattr(analysis, "alias_size_in_bytes", 0)

    def make_init(self, sweep: Sweep) -> Callable[[HparamValues, Array, Variables], LoopState]:
        """Makes the function (hyperparameters, key, given variables) -> a replica's first state."""
        example = jax.device_put(self.example)
        # `init` must not hold `self`, which holds its program: the cycle would outlive `fit`.
        worst_value = -math.inf if self.maximize else math.inf

        def init(values: HparamValues, key: Array, given: Variables) -> LoopState:
            e = sweep.traced(values)
            options: Any = {"given": given, "trainable": e.trainable, "lora": e.lora, "ema": e.ema}
            train = init_state(e.model, e.optimizer, e.balancer, example, key, **options)
            return init_loop_state(train, worst_value)

        return init

    def trace_step(self, sweep: Sweep) -> tuple[Any, ...]:
        """Traces a replica's training step; returns it with the shapes of its arguments."""
        values = {path: jnp.zeros(()) for path in sweep.values}
        state = jax.eval_shape(self.make_init(sweep), values, jax.random.key(0), {}).train
        step = make_replica_train_step(self._replace_cached(sweep), axis_name=None)
        batch = make_batch_shapes(self.example, self.experiment.batch_size)
        frozen = jax.eval_shape(self._make_frozen, {}) if self.experiment.has_frozen else None
        if self.cached:
            assert frozen is not None
            encode = functools.partial(encode_batch, self.experiment, self.cached, train=True)
            batch = jax.eval_shape(encode, frozen, batch)
            frozen = drop_encoders(frozen, self.cached)
        arguments = (values, state), batch, frozen
        jax.eval_shape(step, *arguments)
        return step, *arguments

    def flops(self) -> int:
        """Returns the floating-point operations of one replica's step (`mmjax.inspection.flops`).

        Loops of unknown length, as solvers have them, count as if they ran once.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return count_flops(*self.trace_step(make_constant_sweep(self.experiment)))

    def place(self, tree: Any) -> Any:
        """Puts a tree with a leading axis of replicas on the devices."""
        return jax.device_put(tree, self.placement)

    def collect_statistics(self, variables: Variables, split: str) -> list[SplitStatistics]:
        """Returns the statistics of every replica's variables on a split."""
        constants = self.constants
        return collect_statistics(
            lambda *arguments: self.eval_program(*arguments, *constants),
            self.splits.feed(split),
            (self.values, variables),
            replicas=len(self.seeds),
            share=compute_process_share(self.devices),
            examples=self.splits.size(split),
            batch_size=self.experiment.eval_batch_size,
            batches=self.experiment.steps_per_dispatch,
        )

    def evaluate(self, variables: Variables, split: str) -> list[dict[str, float]]:
        """Returns the metrics of every replica's variables, as of `Model.apply`, on a split."""
        return self.summarize(variables, self.collect_statistics(variables, split))

    def summarize(
        self, variables: Variables, statistics: Sequence[SplitStatistics]
    ) -> list[dict[str, float]]:
        """Returns the metrics of every replica's statistics of its variables on a split."""
        collect = functools.partial(self.collect_statistics, variables, "validation")
        return summarize_replicas(self.models, statistics, collect)

    def has_stopped(self, state: LoopState) -> Bool[np.ndarray, " s"]:
        """Returns which replicas have run out of patience."""
        patience = self.experiment.patience
        return np.asarray(state.waited) >= (math.inf if patience is None else patience)

    def select_best(
        self,
        state: LoopState,
        validation: list[dict[str, float]],
        failed: Collection[int] = (),
    ) -> LoopState:
        """Updates the best parameters of replicas that improved, unless they have stopped.

        Args:
          state: the state.
          validation: metrics of each replica.
          failed: replicas that are no longer finite; they keep their best parameters.

        Raises:
          ValueError: if the monitored metric of a replica that has not failed is NaN.
        """
        monitor = self.experiment.monitor
        values = [metrics[monitor] for metrics in validation]
        if any(math.isnan(v) and i not in failed for i, v in enumerate(values)):
            raise ValueError(
                f"monitor {monitor!r} is NaN on the validation split, so no parameters can be "
                "chosen by it; give the split labels for every task that it covers, or monitor "
                "another metric."
            )
        value = jnp.array(values, jnp.float32)
        better = value > state.best_value if self.maximize else value < state.best_value
        return update_best_params(state, value, better & ~self.has_stopped(state))


def _get_shapes(data: Batch, indices: Any) -> tuple[tuple[int, ...], ...]:
    """Returns the shapes of a dispatch, each of which needs a program of its own."""
    return tuple(np.shape(x) for x in jax.tree.leaves((data, indices)))
