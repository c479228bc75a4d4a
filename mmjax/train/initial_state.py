"""What a run starts from: the first state of every replica, and the variables that do not train."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mmjax.experiment import Experiment
from mmjax.train.hardware.compilation import (
    RUN_ONCE_OPTIONS,
    compile_in_thread,
    compile_with_options,
)
from mmjax.train.hardware.parallel import map_over_replicas
from mmjax.train.hardware.placement import Placement
from mmjax.train.steps.initial_variables import load_initial_weights, trace_variables
from mmjax.train.steps.state import LoopState, init_frozen_variables, init_loop_state, init_state
from mmjax.train.traced_hparams import HparamValues, Sweep
from mmjax.types import Batch, Variables


@dataclasses.dataclass(eq=False)
class InitialState:
    """The first state of every replica, and the frozen variables, which they share.

    Attributes:
      experiment: that of the first replica.
      seeds: one per replica.
      sweep: hyperparameters in which the replicas differ.
      example: a batch, of which only the shapes matter.
      worst_value: of the monitored metric; any first value is better.
      placement: where the states and the frozen variables lie.
    """

    experiment: Experiment
    seeds: Sequence[int]
    sweep: Sweep
    example: Batch
    worst_value: float
    placement: Placement

    @functools.cached_property
    def program(self) -> jax.stages.Traced:
        """Program that makes the states from `arguments`, traced."""
        return self._trace(self.given)

    def start(self) -> Callable[[], LoopState]:
        """Compiles `program` in a thread; returns the function that waits for it and runs it."""
        # It runs once: optimizing its many random draws would take longer than all other programs.
        compiled = compile_in_thread(self.program.lower(), RUN_ONCE_OPTIONS)
        return lambda: compiled.result()(*self.arguments)

    @property
    def arguments(self) -> tuple[HparamValues, Array, Variables]:
        """Arguments of `program`: hyperparameters, keys and given variables."""
        return self.sweep.arrays(), self._make_keys(), self.given

    def _make_keys(self) -> Array:
        return jnp.stack([jax.random.key(seed) for seed in self.seeds])

    def _trace(self, given: Variables) -> jax.stages.Traced:
        platform = self.placement.states.mesh.devices.flat[0].platform
        make = self.make_init(self.sweep)
        mapped = map_over_replicas(make, len(self.seeds), (0, 0, None), platform)
        arguments = self.sweep.arrays(), jax.eval_shape(self._make_keys), given
        options: Any = {}
        if self.placement.is_split:  # no device makes a whole state
            shapes = jax.eval_shape(mapped, *arguments)
            options["out_shardings"] = self.placement.of_states(shapes)
        return jax.jit(mapped, **options).trace(*arguments)

    def make_init(self, sweep: Sweep) -> Callable[[HparamValues, Array, Variables], LoopState]:
        """Makes the function (hyperparameters, key, given variables) -> a replica's first state."""
        example = jax.device_put(self.example)
        # `init` must not hold `self`, which holds its program: the cycle would outlive `fit`.
        worst_value = self.worst_value

        def init(values: HparamValues, key: Array, given: Variables) -> LoopState:
            e = sweep.traced(values)
            options: Any = {"given": given, "trainable": e.trainable, "lora": e.lora, "ema": e.ema}
            train = init_state(e.model, e.optimizer, e.balancer, example, key, **options)
            return init_loop_state(train, worst_value)

        return init

    @functools.cached_property
    def given(self) -> Variables:
        """Variables that `Experiment.init` reads from files, the same for every replica."""
        init = self.experiment.init
        return load_initial_weights(init, self.variable_shapes) if init else {}

    @functools.cached_property
    def variable_shapes(self) -> Variables:
        """Shapes of the model's variables."""
        return trace_variables(self.experiment.model, self.example)

    @functools.cached_property
    def shapes(self) -> LoopState:
        """Types, shapes and placement of the states; no weight file is read for them."""
        traced = self._trace({}) if self.experiment.init else self.program
        return _place_shapes(traced.out_info, self.placement.of_states)

    @functools.cached_property
    def frozen(self) -> Variables | None:
        """Variables that do not train, one copy for all replicas; None if all train.

        `fit` and `evaluate_best` replace them by what the run stored.
        """
        if not self.experiment.has_frozen:
            return None
        options: Any = {}
        if self.placement.is_split:
            shapes = jax.eval_shape(self.make_frozen, self.given)
            options["out_shardings"] = self.placement.of_constants(shapes)
        lowered = jax.jit(self.make_frozen, **options).lower(self.given)
        frozen = compile_with_options(lowered, RUN_ONCE_OPTIONS)(self.given)
        return jax.device_put(frozen, self.placement.of_constants(frozen))

    @functools.cached_property
    def frozen_shapes(self) -> Variables | None:
        """Types, shapes and placement of `frozen`; no weight file is read for them."""
        if not self.experiment.has_frozen:
            return None
        shapes = jax.eval_shape(self.make_frozen, {})
        return _place_shapes(shapes, self.placement.of_constants)

    def make_frozen(self, given: Variables) -> Variables:
        """Makes the variables that do not train: a pure function."""
        e = self.experiment
        options: Any = {"given": given, "trainable": e.trainable, "lora": e.lora}
        return init_frozen_variables(e.model, self.example, **options)


def _place_shapes(shapes: Any, choose_shardings: Callable[[Any], Any]) -> Any:
    """Returns shapes with their placement."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        choose_shardings(shapes),
    )
