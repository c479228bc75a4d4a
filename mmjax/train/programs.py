"""The compiled programs of an experiment for a number of replicas and devices.

A replica is one training inside of a program: one seed and, with a `Sweep`, its own values of some
hyperparameters.
"""

import functools
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.experiment import Experiment
from mmjax.inspection.flops import count_flops
from mmjax.inspection.model_parts import make_batch_shapes
from mmjax.train.checks.experiment_check import check_experiment
from mmjax.train.frozen_tokens import (
    drop_encoders,
    encode_batch,
    encode_split,
    find_frozen_encoders,
    replace_encoders,
)
from mmjax.train.hardware.compilation import COMPILER_OPTIONS, compile_in_thread
from mmjax.train.hardware.device_groups import DEVICE_AXIS
from mmjax.train.hardware.devices import choose_devices
from mmjax.train.hardware.multihost import fetch_arrays
from mmjax.train.hardware.parallel import (
    count_concurrent_replicas,
    make_eval_program,
    make_train_program,
)
from mmjax.train.hardware.placement import make_placement
from mmjax.train.initial_state import InitialState
from mmjax.train.monitor import make_monitor
from mmjax.train.splits import Splits
from mmjax.train.steps.replica_steps import (
    make_replica_eval_step,
    make_replica_loss_step,
    make_replica_train_step,
    make_replica_validation,
)
from mmjax.train.steps.state import LoopState
from mmjax.train.traced_hparams import Sweep, check_traceable, make_constant_sweep
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
        self.models = [e.model for e in self.sweep.experiments(len(self.seeds))]
        self.monitor = make_monitor(experiment)
        layout: dict[str, Any] = {
            "replicas": len(self.seeds),
            "devices": devices,
            "sharded": experiment.stream,
        }
        self.placement = make_placement(**layout, split=experiment.sharding == "fsdp")
        self.concurrent_replicas = count_concurrent_replicas(**layout)
        self.initial = InitialState(
            experiment,
            self.seeds,
            self.sweep,
            self.splits.example(),
            worst_value=self.monitor.worst_value,
            placement=self.placement,
        )
        if self.placement.is_split:
            self.placement.warn_if_nothing_is_split(self.initial.variable_shapes["params"])
        self.cached: list[str] = []  # modalities whose tokens are computed once
        if experiment.cache_frozen:
            self.cached = find_frozen_encoders(experiment, self.initial.variable_shapes)
            self.splits.encode = self._encode_split
        self.step_sweep = replace_encoders(self.sweep, self.cached)
        check_traceable(self.sweep, self.trace_step)
        self.values = self.place(self.sweep.arrays())
        options = layout | {
            "constants": int(experiment.has_frozen),
            "split": self.placement.is_split,
        }
        # A step that the compiler partitions is that of one device, and sums over no axis.
        axis_name = None if self.placement.is_split else DEVICE_AXIS
        train_step = make_replica_train_step(self.step_sweep, axis_name)
        self.train_program = make_train_program(train_step, **options)
        self.compiled: dict[Any, Future] = {}
        eval_step = make_replica_eval_step(self.step_sweep, axis_name)
        self.eval_program = make_eval_program(eval_step, **options)
        self.loss_program: Any = None
        self.validation_program: Any = None
        if experiment.balancer.validate is not None:
            validation = make_replica_validation(self.step_sweep)
            self.validation_program = jax.jit(jax.vmap(validation))
            loss_step = make_replica_loss_step(self.step_sweep, axis_name)
            self.loss_program = make_eval_program(loss_step, **options)

    @property
    def examples_per_step(self) -> int:
        """Number of examples per step, over all replicas."""
        return self.experiment.batch_size * len(self.seeds)

    @property
    def shares_data(self) -> bool:
        """Whether all devices use one copy of the data, as those of a CPU do without a stream."""
        return self.devices[0].platform == "cpu" and not self.experiment.stream

    @property
    def constants(self) -> tuple[Variables, ...]:
        """Last arguments of the programs: the variables that do not train, if there are any."""
        frozen = self.initial.frozen
        return () if frozen is None else (drop_encoders(frozen, self.cached),)

    @property
    def constant_shapes(self) -> tuple[Variables, ...]:
        """Types, shapes and placement of `constants`, which need not exist for them."""
        frozen = self.initial.frozen_shapes
        return () if frozen is None else (drop_encoders(frozen, self.cached),)

    def _encode_split(self, name: str, batch: Batch) -> Batch:
        """Replaces the inputs of cached encoders by their tokens."""
        frozen, train = self.initial.frozen, name == "train"
        assert frozen is not None
        if self.placement.is_split:
            frozen = fetch_arrays(frozen)
        return encode_split(self.experiment, self.cached, frozen, batch, train=train)

    def init(self) -> LoopState:
        """Returns the state before the first step, on all devices."""
        return self.place(self.initial.start()())

    def compile_and_init(self, data: Batch, indices: Any) -> LoopState:
        """Returns the state before the first step; meanwhile the training program compiles.

        Args:
          data: of the first dispatch.
          indices: of the first dispatch.
        """
        make_state = self.initial.start()
        self._start_compiling(data, indices)
        return self.place(make_state())

    def train(
        self, state: TrainState, data: Batch, indices: Any
    ) -> tuple[TrainState, Mapping[str, Any]]:
        """Runs many steps in one dispatch; the state is donated, metrics are [replicas, steps]."""
        whole = self.placement.takes_all_devices
        program = self.compile(data, indices) if whole else self.train_program
        data, indices = self.placement.join_processes(data, indices)
        arguments = (self.values, state), data, indices, *self.constants
        (self.values, state), metrics = program(*arguments)
        return state, metrics

    def compile(self, data: Batch, indices: Any) -> Any:
        """Returns the training program for dispatches of these shapes, compiled once.

        In a run of several processes each one passes the shards of its own devices, which `pmap`
        joins, but a compiled program does not take. There the result is for inspection only, and is
        compiled from arrays, since `pmap` cannot join shapes.
        """
        return self._start_compiling(data, indices).result()

    def _start_compiling(self, data: Batch, indices: Any) -> Future:
        """Returns the future result of `compile`, which compiles in a thread."""
        key = tuple(map(np.shape, jax.tree.leaves((data, indices))))
        if key not in self.compiled:
            options, state, constants = {}, self.initial.shapes, self.constant_shapes
            if self.placement.takes_all_devices:
                options = COMPILER_OPTIONS.get(self.devices[0].platform, {})
            else:
                state, constants = self.init(), self.constants
            shared = *self.placement.join_processes(data, indices), *constants
            lowered = self.train_program.lower((self.values, state.train), *shared)
            self.compiled[key] = compile_in_thread(lowered, options)
        return self.compiled[key]

    def peak_bytes(self, data: Batch, indices: Any) -> int:
        """Returns the memory that `train` needs on one device, its arguments included."""
        analysis = self.compile(data, indices).memory_analysis()
        sizes = ("argument_size", "output_size", "temp_size")
        total = sum(getattr(analysis, f"{size}_in_bytes", 0) for size in sizes)
        if self.shares_data:  # of which each device counts its part
            shared = sum(x.nbytes for x in jax.tree.leaves(data))
            total -= shared - shared // len(self.devices)
        return total - getattr(analysis, "alias_size_in_bytes", 0)  # donated: the same memory

    def trace_step(self, sweep: Sweep) -> tuple[Any, ...]:
        """Traces a replica's training step; returns it with the shapes of its arguments."""
        values = {path: jnp.zeros(()) for path in sweep.values}
        init = self.initial.make_init(sweep)
        state = jax.eval_shape(init, values, jax.random.key(0), {}).train
        step = make_replica_train_step(replace_encoders(sweep, self.cached), axis_name=None)
        frozen = None
        if self.experiment.has_frozen:
            frozen = jax.eval_shape(self.initial.make_frozen, {})
            frozen = drop_encoders(frozen, self.cached)
        arguments = (values, state), self.trace_examples(self.experiment.batch_size), frozen
        jax.eval_shape(step, *arguments)
        return step, *arguments

    def trace_examples(self, count: int) -> Batch:
        """Returns the shapes of `count` training examples, as the training step gets them."""
        batch = make_batch_shapes(self.initial.example, count)
        if not self.cached:
            return batch
        frozen = jax.eval_shape(self.initial.make_frozen, {})
        encode = functools.partial(encode_batch, self.experiment, self.cached, train=True)
        encoded: Batch = jax.eval_shape(encode, frozen, batch)
        return encoded

    def flops(self) -> int:
        """Returns the floating-point operations of one replica's step (`mmjax.inspection.flops`).

        Loops of unknown length, as solvers have them, count as if they ran once.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return count_flops(*self.trace_step(make_constant_sweep(self.experiment)))

    def place(self, tree: Any) -> Any:
        """Puts a tree with a leading axis of replicas on the devices."""
        return jax.device_put(tree, self.placement.of_states(tree))
