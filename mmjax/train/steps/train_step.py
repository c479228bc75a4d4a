"""The pure training step."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from mmjax.balance import Balancer
from mmjax.balance.diagnostics import diagnose_gradients
from mmjax.balance.jacobian_rows import gramian
from mmjax.balance.pullback import ModalityScores
from mmjax.data.augment import AugmentExample
from mmjax.model import Model
from mmjax.train.steps.averages import update_averages
from mmjax.train.steps.batch_parts import differentiate_parts
from mmjax.train.steps.device_sums import average_over_devices
from mmjax.train.steps.forward import get_loss_names
from mmjax.train.steps.step_losses import StepSettings, differentiate_batch
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
    accumulate: int = 1,
    axis_name: str | None = None,
) -> TrainStep:
    """Makes the pure function (state, batch, frozen variables) -> (state, metrics).

    The last argument is what does not train, as `mmjax.freezing.split_variables` separates it; it
    may be left out if everything trains. A task's loss is the mean over its labeled examples on ALL
    devices, under their weights if it has any, and the balancer gets losses and gradients that are
    reduced over devices already, so that the update does not depend on the number of devices. The
    model's auxiliary objectives are losses like the tasks'.

    Args:
      model: the model.
      optimizer: any optax transformation; those that take a `value` get the weighted loss.
      balancer: turns the tasks' losses and gradients into one gradient.
      augment: (key, example) -> example, applied to every example before the step; see
        `mmjax.data.augment.make_example_augmentation`.
      diagnostics: whether the metrics describe the tasks' gradients, for one backward pass per
        task; see `mmjax.balance.diagnostics.diagnose_gradients`.
      compute_dtype: "float32" or "bfloat16".
      ema: decay of the averages of the variables, which `init_state` started; None for none.
      accumulate: number of micro-batches; see `mmjax.train.steps.micro_batches`.
      axis_name: name of the device axis under `pmap`.

    Returns:
      The step, for `jit`, `scan` and `vmap`. Its metrics are {name: (total, count)}, to be merged
      by adding: "loss" (the weighted sum), "loss/TASK", "weight/TASK", "gradient_norm", after the
      update "parameter_norm", and "score/MODALITY" if the balancer asks for scores.

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
    settings = StepSettings(model, compute_dtype, axis_name, balancer.scores, accumulate)
    options = StepOptions(balancer, make_optimizer_update(optimizer), augment, diagnostics, ema)

    def train_step(
        state: TrainState, batch: Batch, frozen: Variables | None = None
    ) -> tuple[TrainState, Metrics]:
        return _take_step(settings, options, state, batch, frozen)

    return train_step


class StepOptions(NamedTuple):
    """What a step does with its losses; see `make_train_step`."""

    balancer: Balancer
    update: Callable[..., tuple[Params, Any]]
    augment: AugmentExample | None
    diagnostics: bool
    ema: float | None


def _take_step(
    settings: StepSettings,
    options: StepOptions,
    state: TrainState,
    batch: Batch,
    frozen: Variables | None,
) -> tuple[TrainState, Metrics]:
    """Makes one training step."""
    balancer, axis_name, old = options.balancer, settings.axis_name, state.variables
    # All draws follow from (key, step), so that a resumed run repeats the uninterrupted one.
    step_key = jax.random.fold_in(state.key, state.step)
    balancer_key, model_key, augment_key = jax.random.split(step_key, 3)
    if options.augment is not None:
        batch = augment_batch(options.augment, augment_key, batch, axis_name)
    if axis_name is not None:
        model_key = jax.random.fold_in(model_key, jax.lax.axis_index(axis_name))
    visible = None
    if balancer.hide is not None:
        drawn = {"key": balancer_key, "indices": _index_examples(batch, axis_name)}
        visible = balancer.hide(state.balancer_state, batch.present, **drawn)
    pass_options = model_key, frozen, visible
    losses, pullback, counts, variables = differentiate_parts(
        settings, balancer.parts, state.params, old, batch, *pass_options
    )
    gradient_metrics: Metrics = {}
    if options.diagnostics:
        rows = pullback.jacobian()
        pullback = pullback._replace(jacobian=lambda: rows)  # the balancer need not repeat it
        names = get_loss_names(settings.model)
        gradient_metrics = diagnose_gradients(gramian(rows), names, counts > 0)
    gradient, weights, balancer_state = balancer.update(
        losses, pullback, state.balancer_state, key=balancer_key, labeled=counts > 0
    )
    loss = jnp.dot(weights, losses)
    updates, opt_state = options.update(gradient, state.opt_state, state.params, loss)
    params = optax.apply_updates(state.params, updates)
    if balancer.after is not None:
        after = differentiate_batch(settings, params, old, batch, *pass_options).losses
        balancer_state = balancer.after(balancer_state, losses, after, labeled=counts > 0)
    metrics = (
        _summarize_losses(get_loss_names(settings.model), losses, counts, weights)
        | gradient_metrics
        | _summarize_scores(pullback.scores)
        | _summarize_update(loss, gradient, params)
    )
    if axis_name is not None:
        variables = average_over_devices(variables, axis_name)
    new = TrainState(state.step + 1, params, variables, opt_state, balancer_state, state.key)
    if options.ema is not None:
        new = update_averages(new._replace(averages=state.averages), options.ema)
    return new, metrics


def _index_examples(batch: Batch, axis_name: str | None) -> Int[Array, " b"]:
    """Returns the indices of this device's examples in the batch of ALL devices."""
    first = 0 if axis_name is None else batch.size * jax.lax.axis_index(axis_name)
    return first + jnp.arange(batch.size)


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


def augment_batch(
    augment: AugmentExample, key: Key[Array, ""], batch: Batch, axis_name: str | None
) -> Batch:
    """Augments each example with a key for its index in the batch of ALL devices."""
    indices = _index_examples(batch, axis_name)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
    return jax.vmap(augment)(keys, batch)


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


def _summarize_update(loss: Float[Array, ""], gradient: Params, params: Params) -> Metrics:
    """Returns the weighted loss and the norms of the gradient and the new parameters."""
    return {
        "loss": (loss, jnp.ones(())),
        "gradient_norm": (optax.tree.norm(gradient), jnp.ones(())),
        "parameter_norm": (optax.tree.norm(params), jnp.ones(())),
    }


def _summarize_scores(scores: ModalityScores | None) -> Metrics:
    """Returns the modalities' scores as totals and counts over the tasks; {} without scores."""
    if scores is None:
        return {}
    totals = (scores.likelihoods * scores.counts).sum(axis=1)
    counts = scores.counts.sum(axis=1)
    return {f"score/{m}": (totals[i], counts[i]) for i, m in enumerate(scores.modalities)}
