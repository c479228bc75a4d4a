"""The pure training step."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from mmjax.balance import Balancer
from mmjax.balance.diagnostics import diagnose_gradients
from mmjax.balance.pullback import Pullback, differentiate_losses, gramian
from mmjax.data.augment import AugmentExample
from mmjax.freezing import complete_variables, select_same_keys
from mmjax.layers.batch_norm import freeze_batch_statistics
from mmjax.model import Model
from mmjax.parameters import mark_shared_parameters
from mmjax.train.steps.averages import update_averages
from mmjax.train.steps.forward import (
    compute_features,
    compute_predictions,
    count_labels,
    divide_by_counts,
    get_loss_names,
    get_task_names,
    join_variables,
    sum_losses,
    sum_objectives,
    weigh_labels,
)
from mmjax.types import Batch, Optimizer, Params, TrainState, Variables

Metrics = dict[str, tuple[Array, Array]]
TrainStep = Callable[..., tuple[TrainState, Metrics]]


def make_train_step(
    model: Model,
    optimizer: Optimizer,
    balancer: Balancer,
    *,
    augment: AugmentExample | None = None,
    diagnostics: bool = False,
    compute_dtype: str = "float32",
    ema: float | None = None,
    axis_name: str | None = None,
) -> TrainStep:
    """Makes the pure function (state, batch, frozen variables) -> (state, metrics).

    The last argument is what does not train, as `mmjax.freezing.split_variables` separates it from
    the state's parameters and variables; it may be left out if everything trains. The function runs
    unchanged under `jit`, `scan` and `vmap`, and under `pmap` if `axis_name` is given. A task's
    loss is the mean over its labeled examples on ALL devices, under their weights if it has any,
    and the balancer gets losses and gradients that are reduced over devices already, so that the
    update does not depend on the number of devices. The model's auxiliary objectives are losses
    like the tasks'.

    Args:
      model: the model.
      optimizer: any optax transformation; those that take a `value` get the weighted loss.
      balancer: turns the tasks' losses and gradients into one gradient.
      augment: (key, example) -> example, applied to every example before the step; see
        `mmjax.data.augment.make_example_augmentation`.
      diagnostics: whether the metrics describe the tasks' gradients; see
        `mmjax.balance.diagnostics.diagnose_gradients`. It costs one backward pass per task, unless
        the balancer takes the Jacobian anyway.
      compute_dtype: "float32" or "bfloat16".
      ema: decay of the averages of the variables, which `init_state` started; None for none. See
        `mmjax.train.steps.averages`.
      axis_name: name of the device axis.

    Returns:
      The step. Its metrics are {name: (total, count)}, to be merged by adding: "loss" (the
      weighted sum), "loss/TASK", "weight/TASK", "gradient_norm" and, after the update,
      "parameter_norm".

    Example:
      >>> from mmjax.balance import equal
      >>> from mmjax.encoders import MLPEncoder
      >>> from mmjax.fusion import Concat
      >>> from mmjax.heads import Classification
      >>> from mmjax.train.steps.state import init_state
      >>> model = Model({"sound": MLPEncoder((8,))}, Concat(), {"digit": Classification(10)})
      >>> x, yes = jnp.ones((4, 5)), jnp.ones(4, bool)
      >>> batch = Batch({"sound": x}, {"sound": yes}, {}, {"digit": jnp.arange(4)}, {"digit": yes})
      >>> parts = model, optax.adam(1e-3), equal()
      >>> state = jax.eval_shape(lambda key: init_state(*parts, batch, key), jax.random.key(0))
      >>> new_state, metrics = jax.eval_shape(make_train_step(*parts), state, batch)
      >>> sorted(metrics)
      ['gradient_norm', 'loss', 'loss/digit', 'parameter_norm', 'weight/digit']
    """
    tasks, names = get_task_names(model), get_loss_names(model)
    update = make_optimizer_update(optimizer)

    def reduce(x: Any) -> Any:
        return x if axis_name is None else sum_over_devices(x, axis_name)

    def gather(x: Any) -> Any:
        return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)

    def losses_of(
        params: Params,
        variables: Variables,
        batch: Batch,
        key: Key[Array, ""],
        frozen: Variables | None,
    ) -> tuple[Float[Array, " t"], Pullback, Float[Array, " t"], Variables]:
        """Returns mean losses over all devices, their pullback, counts, and updated variables."""
        shared_options: Any = {"rngs": {"dropout": key}, "axis_name": axis_name}
        options = shared_options | {"compute_dtype": compute_dtype, "train": True}

        def represent(params: Params) -> tuple[dict[str, Any], Variables]:
            every = complete_variables({"params": params, **variables}, frozen)
            return compute_features(model, every, batch, **options)

        def head_losses(params: Params, features: dict[str, Any]) -> tuple[Array, Any]:
            every = complete_variables({"params": params, **variables}, frozen)
            predictions, of_heads = compute_predictions(model, every, features, **options)
            label_weights = weigh_labels(model, batch)
            of_tasks = (
                sum_losses(model, predictions, batch, tasks, label_weights),
                count_labels(batch, tasks, label_weights),
            )
            *of_others, of_objectives = sum_objectives(
                model, every, features, batch, gather=gather, **shared_options
            )
            totals, counts = map(jnp.concatenate, zip(of_tasks, of_others, strict=True))
            counts = reduce(jax.lax.stop_gradient(counts))
            is_weighted = [name in label_weights for name in names]
            means = divide_by_counts(totals, counts, is_weighted)
            return means, (counts, of_heads, of_objectives)

        with freeze_batch_statistics((frozen or {}).get("batch_stats", {})):
            losses, pullback, auxiliary = differentiate_losses(
                represent,
                head_losses,
                params,
                tasks=names,
                shared=mark_shared_parameters(model, params),
                reduce=reduce,
            )
        of_features, (counts, of_heads, of_objectives) = auxiliary
        old = complete_variables(variables, frozen and _drop_params(frozen))
        updated = join_variables(old, of_features, of_heads, of_objectives)
        return losses, pullback, counts, select_same_keys(updated, variables)

    def train_step(
        state: TrainState, batch: Batch, frozen: Variables | None = None
    ) -> tuple[TrainState, Metrics]:
        # All draws follow from (key, step), so that a resumed run repeats the uninterrupted one.
        step_key = jax.random.fold_in(state.key, state.step)
        balancer_key, model_key, augment_key = jax.random.split(step_key, 3)
        if augment is not None:
            batch = augment_batch(augment, augment_key, batch, axis_name)
        if axis_name is not None:
            model_key = jax.random.fold_in(model_key, jax.lax.axis_index(axis_name))
        old = state.variables
        losses, pullback, counts, variables = losses_of(state.params, old, batch, model_key, frozen)
        if balancer.parts > 1:
            parts = _split_batch(batch, balancer.parts)
            pullback = pullback._replace(
                parts=tuple(
                    losses_of(state.params, old, part, model_key, frozen)[1] for part in parts
                )
            )
        gradient_metrics: Metrics = {}
        if diagnostics:
            rows = pullback.jacobian()
            pullback = pullback._replace(jacobian=lambda: rows)  # the balancer need not repeat it
            gradient_metrics = diagnose_gradients(gramian(rows), names, counts > 0)
        gradient, weights, balancer_state = balancer.update(
            losses, pullback, state.balancer_state, key=balancer_key, labeled=counts > 0
        )
        loss = jnp.dot(weights, losses)
        updates, opt_state = update(gradient, state.opt_state, state.params, loss)
        params = optax.apply_updates(state.params, updates)
        if balancer.after is not None:
            new_losses = losses_of(params, old, batch, model_key, frozen)[0]
            balancer_state = balancer.after(balancer_state, losses, new_losses, labeled=counts > 0)
        metrics = (
            _summarize_losses(names, losses, counts, weights)
            | gradient_metrics
            | {
                "loss": (loss, jnp.ones(())),
                "gradient_norm": (optax.tree.norm(gradient), jnp.ones(())),
                "parameter_norm": (optax.tree.norm(params), jnp.ones(())),
            }
        )
        if axis_name is not None:
            variables = average_over_devices(variables, axis_name)
        new = TrainState(state.step + 1, params, variables, opt_state, balancer_state, state.key)
        if ema is not None:
            new = update_averages(new._replace(averages=state.averages), ema)
        return new, metrics

    return train_step


def _drop_params(variables: Variables) -> Variables:
    """Returns the collections that are not parameters."""
    return {name: tree for name, tree in variables.items() if name != "params"}


def make_optimizer_update(optimizer: Optimizer) -> Callable[..., tuple[Params, Any]]:
    """Makes the function (gradient, state, params, loss) -> (updates, state).

    The loss is passed on as `value` to optimizers that take it.

    Example:
      >>> optimizer = optax.sgd(0.1)
      >>> update = make_optimizer_update(optimizer)
      >>> update(jnp.ones(1), optimizer.init(jnp.ones(1)), jnp.ones(1), jnp.ones(()))[0]
      Array([-0.1], dtype=float32)
    """
    update = optax.with_extra_args_support(optimizer).update
    parameters = inspect.signature(update).parameters.values()
    takes_value = any(p.kind == p.VAR_KEYWORD or p.name == "value" for p in parameters)

    def update_with_loss(gradient: Any, state: Any, params: Any, loss: Array) -> tuple[Params, Any]:
        extra = {"value": loss} if takes_value else {}
        return update(gradient, state, params, **extra)

    return update_with_loss


def sum_over_devices(tree: Any, axis_name: str) -> Any:
    """Sums a tree over devices by `jax.lax.psum`; on CPU as one array, to synchronize only once.

    Integers among floats are exact only as far as floats are.
    """

    def sum_as_one(tree: Any) -> Any:
        flat, unravel = ravel_pytree(tree)
        return unravel(jax.lax.psum(flat, axis_name))

    def sum_leaves(tree: Any) -> Any:
        return jax.lax.psum(tree, axis_name)

    return jax.lax.platform_dependent(tree, cpu=sum_as_one, default=sum_leaves)


def average_over_devices(variables: Variables, axis_name: str) -> Variables:
    """Averages floats over devices, so that all go on with the same; other leaves stay as they are.

    Batch statistics are equal already; what a module of the user's accumulates may differ.
    """
    leaves, treedef = jax.tree.flatten(variables)
    floats = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    if not floats:
        return variables
    devices = jax.lax.axis_size(axis_name)
    sums = iter(sum_over_devices(floats, axis_name))
    return jax.tree.unflatten(
        treedef,
        [next(sums) / devices if jnp.issubdtype(x.dtype, jnp.floating) else x for x in leaves],
    )


def augment_batch(
    augment: AugmentExample, key: Key[Array, ""], batch: Batch, axis_name: str | None
) -> Batch:
    """Augments each example with a key for its index in the batch of ALL devices."""
    first = 0 if axis_name is None else batch.size * jax.lax.axis_index(axis_name)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(batch.size))
    return jax.vmap(augment)(keys, batch)


def _split_batch(batch: Batch, parts: int) -> list[Batch]:
    """Returns every `parts`-th example, so that the parts are the same on any number of devices.

    Raises:
      ValueError: if the batch of one device cannot be split evenly.
    """
    if batch.size % parts:
        raise ValueError(
            f"This balancer splits a batch into {parts} parts, but a device's batch has "
            f"{batch.size} examples; choose another batch_size."
        )
    return [jax.tree.map(lambda x, i=i: x[i::parts], batch) for i in range(parts)]


def _summarize_losses(
    tasks: Sequence[str],
    losses: Float[Array, " t"],
    counts: Float[Array, " t"],
    weights: Float[Array, " t"],
) -> Metrics:
    """Returns the losses and their weights as totals and counts."""
    metrics = {}
    for i, task in enumerate(tasks):
        metrics[f"loss/{task}"] = losses[i] * counts[i], counts[i]
    for i, task in enumerate(tasks):
        metrics[f"weight/{task}"] = weights[i], jnp.ones(())
    return metrics
