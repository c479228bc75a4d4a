"""The states of training: what a step carries, and what the loop carries besides."""

import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mmjax.balance import Balancer
from mmjax.balance.wrapping import init_balancer
from mmjax.freezing import split_variables
from mmjax.masks import expand_mask
from mmjax.model import Model
from mmjax.parameters import mark_shared_parameters, overlay_tree, partition_params
from mmjax.pretrained.lora import LoRA, add_lora
from mmjax.train.steps.averages import (
    compute_replicas_eval_variables,
    has_eval_variables,
    init_averages,
)
from mmjax.train.steps.forward import get_loss_names
from mmjax.train.steps.initial_variables import init_variables
from mmjax.types import Batch, Optimizer, Params, TrainState, Variables

_NO_UPDATES: Mapping[str, LoRA] = types.MappingProxyType({})


def init_state(
    model: Model,
    optimizer: Optimizer,
    balancer: Balancer,
    batch: Batch,
    key: Key[Array, ""],
    *,
    ema: float | None = None,
    given: Variables | None = None,
    trainable: Sequence[str] | None = None,
    lora: Mapping[str, LoRA] = _NO_UPDATES,
) -> TrainState:
    """Returns the state before the first step.

    Args:
      model: the model.
      optimizer: any optax transformation.
      balancer: combines the tasks' gradients.
      batch: examples, of which only the shapes are used.
      key: random key of the run.
      given: variables that are not drawn, such as pretrained ones, by collection.
      trainable: patterns of the paths of parameters that train, and that the state has; None is
        all. `init_frozen_variables` returns the others.
      lora: {pattern of the paths of kernels: low-rank update}.
      ema: the decay of `make_train_step`, if the variables are averaged.
    """
    init_key, run_key = jax.random.split(key)
    variables = _init_and_overlay(model, batch, init_key, given, lora)
    if trainable is not None or lora:
        variables, _ = split_variables(variables, trainable)
    params = variables["params"]
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        variables={name: tree for name, tree in variables.items() if name != "params"},
        opt_state=optimizer.init(params),
        balancer_state=init_balancer_state(model, balancer, params),
        key=run_key,
    )
    return state if ema is None else state._replace(averages=init_averages(state.all_variables))


def init_balancer_state(model: Model, balancer: Balancer, params: Params) -> Any:
    """Returns the first state of the model's balancer; `params` are those that train."""
    shared = partition_params(params, mark_shared_parameters(model, params))[0]
    modalities = tuple(sorted(model.encoders))
    names = get_loss_names(model)
    return init_balancer(balancer, names, shared, modalities=modalities, params=params)


def _init_and_overlay(
    model: Model,
    batch: Batch,
    key: Key[Array, ""],
    given: Variables | None,
    lora: Mapping[str, LoRA],
) -> Variables:
    """Returns given variables, random ones for the others, and random low-rank updates."""
    variables: Variables = overlay_tree(init_variables(model, batch, key), given or {})
    return variables | {"params": add_lora(variables["params"], lora, key)} if lora else variables


def init_frozen_variables(
    model: Model,
    batch: Batch,
    *,
    given: Variables | None = None,
    trainable: Sequence[str] | None = None,
    lora: Mapping[str, LoRA] = _NO_UPDATES,
) -> Variables:
    """Returns the variables that do not train, by collection.

    All seeds have the same: what is not given is drawn as for seed 0. See `init_state`.
    """
    init_key, _ = jax.random.split(jax.random.key(0))
    variables = _init_and_overlay(model, batch, init_key, given, lora)
    return split_variables(variables, trainable)[1]


class LoopState(NamedTuple):
    """Content of a checkpoint; every array has a leading axis of replicas.

    Attributes:
      train: the training state.
      best_params: the parameters that were best on the validation split, as they were evaluated.
      best_variables: the model's other variables at that step; {} if it has none.
      best_value: their monitored metric.
      best_step: their step.
      waited: number of validations since then.
      best_raw: all variables of that step as they were trained, if others were evaluated, such as
        averages; {} if they are the same.
    """

    train: TrainState
    best_params: Params
    best_variables: Variables
    best_value: Float[Array, " s"]
    best_step: Int[Array, " s"]
    waited: Int[Array, " s"]
    best_raw: Variables

    @property
    def steps_done(self) -> int:
        """Number of completed steps (identical for all replicas)."""
        return int(self.train.step[0])

    @property
    def best(self) -> Variables:
        """The best parameters and the other variables at that step, as `Model.apply` takes them."""
        return {"params": self.best_params, **self.best_variables}

    @property
    def eval_variables(self) -> Variables:
        """The variables to evaluate at the present step, as `Model.apply` takes them."""
        if has_eval_variables(self.train):
            return compute_replicas_eval_variables(self.train)
        return self.train.all_variables


def init_loop_state(train: TrainState, worst_value: float) -> LoopState:
    """Returns the loop state of one replica before its first step."""
    worst = jnp.array(worst_value)
    zero = jnp.zeros((), jnp.int32)
    raw = train.all_variables if has_eval_variables(train) else {}
    return LoopState(train, train.params, train.variables, worst, zero, zero, raw)


@jax.jit
def update_best_params(state: LoopState, value: Array, better: Array) -> LoopState:
    """Replaces the best parameters of replicas with `better`, and counts the other validations."""

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(expand_mask(better, new.ndim), new, old)

    evaluated = dict(state.eval_variables)
    raw = state.train.all_variables if state.best_raw else {}
    return state._replace(
        best_params=jax.tree.map(choose, evaluated.pop("params"), state.best_params),
        best_variables=jax.tree.map(choose, evaluated, state.best_variables),
        best_value=choose(value, state.best_value),
        best_step=choose(state.train.step, state.best_step),
        waited=jnp.where(better, 0, state.waited + 1),
        best_raw=jax.tree.map(choose, raw, state.best_raw),
    )
