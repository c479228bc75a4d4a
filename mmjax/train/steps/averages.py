"""The variables to evaluate: averages, an optimizer's evaluation parameters, or the trained ones.

Only `compute_eval_variables` decides which. All other code evaluates, selects and stores what it
returns.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from mmjax.types import Params, TrainState, Variables


class Averages(NamedTuple):
    """Exponential moving averages of a model's variables.

    Attributes:
      variables: averages of parameters and other floating-point variables, in float32 or more; of
        integers the newest values.
      weight: sum of the weights of all values so far: 1 - decay^updates.
    """

    variables: Variables
    weight: Float[Array, ""]


def init_averages(variables: Variables) -> Averages:
    """Returns the averages before the first update, which do not count the initial variables."""
    # Weight 0: the first update replaces these values, since its share is then 1.
    return Averages(jax.tree.map(_widen, variables), jnp.zeros(()))


def update_averages(state: TrainState, decay: float) -> TrainState:
    """Averages the variables of a state after an update of its parameters.

    The average after t updates is sum_i decay^(t-i) x_i / sum_i decay^(t-i), the debiased form: the
    first one is x_1, and early ones are nearly plain means. Batch statistics are averaged like the
    parameters: to first order, those of an average of parameters are the average of theirs. Steps
    that only accumulate gradients (`optax.MultiSteps`) do not count.

    Source: Kingma and Ba, "Adam", ICLR 2015 (section 3, debiasing); Polyak and Juditsky, 1992.

    Args:
      state: the state, with averages.
      decay: factor between the weights of two successive updates; between 0 and 1.

    Example:
      >>> state = TrainState(0, {"w": jnp.ones(1)}, {}, (), (), None)
      >>> state = state._replace(averages=init_averages(state.all_variables))
      >>> for value in (2.0, 4.0):
      ...     state = update_averages(state._replace(params={"w": jnp.full(1, value)}), 0.5)
      >>> print(state.averages.variables["params"]["w"])  # (0.5 * 2 + 4) / 1.5
      [3.3333335]
    """
    rate = jnp.asarray(decay, jnp.float32)  # a number that is traced, too
    # With W_t = decay W_{t-1} + (1 - decay) = 1 - decay^t, the debiased average moves toward x_t by
    # the share (1 - decay) / W_t, which falls from 1 at t = 1 to 1 - decay.
    weight = rate * state.averages.weight + (1 - rate)
    share = (1 - rate) / weight

    def average(old: Array, new: Array) -> Array:
        new = _widen(new)
        # In this form a value that does not change keeps its bits.
        return old + share.astype(new.dtype) * (new - old) if _is_floating(new) else new

    newest = _compute_unaveraged_variables(state)
    averages = Averages(jax.tree.map(average, state.averages.variables, newest), weight)
    updated = _has_emitted_update(state.opt_state)
    # An accumulating step leaves the parameters as they are; counting it would weight them twice.
    if updated is not None:
        averages = jax.tree.map(lambda n, o: jnp.where(updated, n, o), averages, state.averages)
    return state._replace(averages=averages)


def has_eval_variables(state: TrainState) -> bool:
    """Checks whether the variables to evaluate differ from those that are trained."""
    return state.averages is not None or bool(find_states(state.opt_state, _SCHEDULE_FREE))


def compute_eval_variables(state: TrainState) -> Variables:
    """Computes the variables to evaluate, as `Model.apply` takes them, from a training state.

    They are the averages, if there are any; with a schedule-free optimizer its evaluation
    parameters; otherwise the state's own variables.

    Example:
      >>> state = TrainState(0, {"w": jnp.ones(1)}, {}, optax.sgd(0.1).init({}), (), None)
      >>> print(compute_eval_variables(state))
      {'params': {'w': Array([1.], dtype=float32)}}
    """
    if state.averages is None:
        return _compute_unaveraged_variables(state)
    # The model computes in the types of its own variables, not in those of the averages.
    return jax.tree.map(
        lambda average, raw: average.astype(raw.dtype),
        state.averages.variables,
        state.all_variables,
    )


@jax.jit
def compute_replicas_eval_variables(state: TrainState) -> Variables:
    """Computes the variables to evaluate of a state whose arrays have a leading replica axis."""
    return jax.vmap(compute_eval_variables)(state)


def compute_eval_params(opt_state: Any, params: Params) -> Params:
    """Computes the parameters to evaluate for an optimizer.

    With a schedule-free optimizer, anywhere in a chain or for some of the parameters only, they are
    those of `optax.contrib.schedule_free_eval_params`; otherwise the parameters themselves.

    Source: Defazio et al., "The road less scheduled", NeurIPS 2024.

    Example:
      >>> params = {"w": jnp.ones(1)}
      >>> optimizer = optax.chain(optax.clip(1.0), optax.contrib.schedule_free_sgd(0.1))
      >>> compute_eval_params(optimizer.init(params), params)
      {'w': Array([1.], dtype=float32)}
    """
    for state in find_states(opt_state, _SCHEDULE_FREE):

        def evaluate(y: Array, z: Any, b1: Any = state.b1) -> Array:
            # Gradients are taken at y = b1 x + (1 - b1) z; solved for the averaged iterate x.
            # Where the optimizer is masked, as in `per_path`, there is no z.
            return (y - (1 - b1) * z) / b1 if jax.tree.leaves(z) else y

        params = jax.tree.map(evaluate, params, state.z)
    return params


def find_states(opt_state: PyTree, kind: type[Any]) -> list[Any]:
    """Finds the states of one kind of transformation inside an optimizer's state.

    Example:
      >>> state = optax.chain(optax.clip(1.0), optax.adam(0.1)).init({"w": jnp.ones(1)})
      >>> len(find_states(state, optax.ScaleByAdamState))
      1
    """
    # `is_leaf` keeps each state whole instead of flattening it to its arrays.
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


_SCHEDULE_FREE = optax.contrib.ScheduleFreeState


def _compute_unaveraged_variables(state: TrainState) -> Variables:
    params = compute_eval_params(state.opt_state, state.params)
    return state.all_variables | {"params": params}


def _has_emitted_update(opt_state: PyTree) -> Array | None:
    """Returns whether the last step ended an accumulation; None if the optimizer has none."""
    # `mini_step` counts accumulated gradients and returns to 0 when an update is emitted.
    states = find_states(opt_state, optax.MultiStepsState)
    return jnp.stack([state.mini_step == 0 for state in states]).any() if states else None


def _is_floating(x: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(x), jnp.floating))


def _widen(x: Array) -> Array:
    """Casts low-precision floats to float32, so that small changes are not rounded away."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if _is_floating(x) else x
