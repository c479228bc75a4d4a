"""The pure training step and the pure evaluation step."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from mmjax.balance import Balancer
from mmjax.balance.diagnostics import diagnose
from mmjax.balance.pullback import Pullback, differentiate, gramian
from mmjax.data.augment import AugmentExample
from mmjax.model import Model, safe_inputs, shared_parameters
from mmjax.parameters import partition
from mmjax.types import Batch, Optimizer, Params, TrainState

Metrics = dict[str, tuple[Array, Array]]
Statistics = dict[str, dict[str, Array]]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
EvalStep = Callable[[Params, Batch], Statistics]


def task_names(model: Model) -> tuple[str, ...]:
    """The model's tasks in order: by name."""
    return tuple(sorted(model.heads))


def loss_names(model: Model) -> tuple[str, ...]:
    """The order of every loss vector: the tasks by name, then the auxiliary objectives by name."""
    return (*task_names(model), *sorted(model.auxiliary))


def init_state(
    model: Model,
    optimizer: Optimizer,
    balancer: Balancer,
    batch: Batch,
    key: Key[Array, ""],
) -> TrainState:
    """A fresh state; `batch` serves for its shapes only."""
    init_key, run_key = jax.random.split(key)
    variables = model.init(init_key, batch, method="start", mutable=True)
    others = sorted(set(variables) - {"params", "intermediates"})
    if others:
        raise ValueError(
            f"The model holds the variables {others} beside its parameters. A pure step carries "
            "parameters only: use group or layer norm in place of batch norm."
        )
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        balancer_state=balancer.init(
            loss_names(model), partition(params, shared_parameters(model, params))[0]
        ),
        key=run_key,
    )


def cast(tree: Any, dtype: Any) -> Any:
    """Casts the floating-point arrays of a tree and leaves the others."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def represent(
    model: Model, params: Params, batch: Batch, *, compute_dtype: str, train: bool, rngs: Any = None
) -> dict[str, Any]:
    """Each task's features, in `compute_dtype`; while training also what each objective sees."""
    (features, seen), _ = model.apply(
        {"params": cast(params, compute_dtype)},
        cast(batch.inputs, compute_dtype),
        batch.present,
        batch.lengths,
        train=train,
        rngs=rngs,
        method="see",
        mutable=["intermediates"],
    )
    return features | (dict.fromkeys(model.auxiliary, seen) if train else {})


def predict(
    model: Model,
    params: Params,
    features: dict[str, Any],
    *,
    compute_dtype: str,
    train: bool,
    rngs: Any = None,
) -> dict[str, Array]:
    """Predictions {task: Float32[b, ...]} of the heads, computed in `compute_dtype`."""
    variables = {"params": cast(params, compute_dtype)}
    features = {t: features[t] for t in task_names(model)}
    predictions = model.apply(variables, features, train=train, rngs=rngs, method="predict")
    return cast(predictions, jnp.float32)


def objective_sums(
    model: Model,
    params: Params,
    features: dict[str, Any],
    batch: Batch,
    *,
    rngs: Any,
    gather: Callable[[Any], Any],
) -> tuple[Float[Array, " a"], Float[Array, " a"]]:
    """Each auxiliary objective's total and count on this device, in float32.

    The objectives see zeros where the batch may hold anything.
    """
    if not model.auxiliary:
        return jnp.zeros(0), jnp.zeros(0)
    sums: Any = model.apply(
        {"params": params},
        {name: cast(features[name], jnp.float32) for name in model.auxiliary},
        batch._replace(inputs=safe_inputs(batch), targets=safe_targets(batch)),
        train=True,
        rngs=rngs,
        gather=gather,
        method="objectives",
    )
    totals, counts = zip(*(sums[name] for name in sorted(model.auxiliary)), strict=True)
    return jnp.stack(totals), jnp.stack(counts)


def safe_targets(batch: Batch) -> dict[str, Array]:
    """Targets with zeros for the missing: a bad target gives NaN gradients even when masked."""
    return {
        t: jnp.where(jnp.expand_dims(batch.labeled[t], range(1, y.ndim)), y, jnp.zeros_like(y))
        for t, y in batch.targets.items()
    }


def loss_sums(
    model: Model, predictions: dict[str, Array], batch: Batch, tasks: Sequence[str]
) -> Float[Array, " t"]:
    """Each task's loss, summed over its labelled examples."""
    targets = safe_targets(batch)

    def one(task: str) -> Array:
        losses = jax.vmap(model.heads[task].example_loss)(predictions[task], targets[task])
        return jnp.where(batch.labeled[task], losses, 0.0).sum()

    return jnp.stack([one(t) for t in tasks])


def label_counts(batch: Batch, tasks: Sequence[str]) -> Float[Array, " t"]:
    """How many examples have a label, a task."""
    return jnp.stack([batch.labeled[t].sum().astype(jnp.float32) for t in tasks])


def make_train_step(
    model: Model,
    optimizer: Optimizer,
    balancer: Balancer,
    *,
    augment: AugmentExample | None = None,
    diagnostics: bool = False,
    compute_dtype: str = "float32",
    axis_name: str | None = None,
) -> TrainStep:
    """Makes the pure function (state, batch) -> (state, metrics).

    It runs as it is under `jit`, `scan` and `vmap`, and under `pmap` with `axis_name` given.
    A task's loss is the mean over its labelled examples on ALL devices, and what the balancer sees
    is reduced over devices already, so that the update does not depend on how many there are. The
    model's auxiliary objectives are losses like the tasks'.

    Args:
      model: the model.
      optimizer: any optax transformation; those that take a `value` get the weighted loss.
      balancer: turns the tasks' losses and gradients into one gradient.
      augment: (key, example) -> example, what is done to every example before the step; see
        `mmjax.data.augment.augmentation`.
      diagnostics: whether the metrics tell of the tasks' gradients; see
        `mmjax.balance.diagnostics.diagnose`. It costs a backward pass a task, unless the balancer
        takes the Jacobian anyway.
      compute_dtype: "float32" or "bfloat16".
      axis_name: name of the device axis.

    Returns:
      The step. Its metrics are {name: (total, count)}, to be merged by adding: "loss" (the
      weighted sum), "loss/TASK", "weight/TASK", "gradient_norm" and, after the update,
      "parameter_norm".
    """
    tasks, names = task_names(model), loss_names(model)
    optimizer = optax.with_extra_args_support(optimizer)

    def reduce(x: Any) -> Any:
        return x if axis_name is None else psum(x, axis_name)

    def gather(x: Any) -> Any:
        return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)

    def losses_of(
        params: Params, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Float[Array, " t"], Pullback, Float[Array, " t"]]:
        """Each mean loss over its count on all devices, their pullback, and the counts."""
        rngs = {"dropout": key}
        options: Any = {"compute_dtype": compute_dtype, "train": True, "rngs": rngs}

        def head_losses(params: Params, features: dict[str, Any]) -> tuple[Array, Array]:
            predictions = predict(model, params, features, **options)
            of_tasks = loss_sums(model, predictions, batch, tasks), label_counts(batch, tasks)
            of_others = objective_sums(model, params, features, batch, rngs=rngs, gather=gather)
            totals, counts = map(jnp.concatenate, zip(of_tasks, of_others, strict=True))
            counts = reduce(jax.lax.stop_gradient(counts))
            return totals / jnp.maximum(counts, 1.0), counts

        return differentiate(
            lambda params: represent(model, params, batch, **options),
            head_losses,
            params,
            tasks=names,
            shared=shared_parameters(model, params),
            reduce=reduce,
        )

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        step_key = jax.random.fold_in(state.key, state.step)
        balancer_key, model_key, augment_key = jax.random.split(step_key, 3)
        if augment is not None:
            batch = augmented(augment, augment_key, batch, axis_name)
        if axis_name is not None:
            model_key = jax.random.fold_in(model_key, jax.lax.axis_index(axis_name))
        losses, pullback, counts = losses_of(state.params, batch, model_key)
        if balancer.parts > 1:
            parts = split(batch, balancer.parts)
            pullback = pullback._replace(
                parts=tuple(losses_of(state.params, part, model_key)[1] for part in parts)
            )
        gradients: Metrics = {}
        if diagnostics:
            rows = pullback.jacobian()
            pullback = pullback._replace(jacobian=lambda: rows)
            gradients = diagnose(gramian(rows), names, counts > 0)
        gradient, weights, balancer_state = balancer.update(
            losses, pullback, state.balancer_state, key=balancer_key, labeled=counts > 0
        )
        loss = jnp.dot(weights, losses)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params, value=loss)
        params = optax.apply_updates(state.params, updates)
        if balancer.after is not None:
            now = losses_of(params, batch, model_key)[0]
            balancer_state = balancer.after(balancer_state, losses, now, labeled=counts > 0)
        metrics = (
            summarize(names, losses, counts, weights)
            | gradients
            | {
                "loss": (loss, jnp.ones(())),
                "gradient_norm": (optax.tree.norm(gradient), jnp.ones(())),
                "parameter_norm": (optax.tree.norm(params), jnp.ones(())),
            }
        )
        return TrainState(state.step + 1, params, opt_state, balancer_state, state.key), metrics

    return train_step


def psum(tree: Any, axis_name: str) -> Any:
    """`jax.lax.psum` of a tree; on CPU as one array, since devices meet anew for every one.

    Whole numbers among floats are exact only as far as floats are.
    """

    def as_one(tree: Any) -> Any:
        flat, back = ravel_pytree(tree)
        return back(jax.lax.psum(flat, axis_name))

    def as_leaves(tree: Any) -> Any:
        return jax.lax.psum(tree, axis_name)

    return jax.lax.platform_dependent(tree, cpu=as_one, default=as_leaves)


def augmented(
    augment: AugmentExample, key: Key[Array, ""], batch: Batch, axis_name: str | None
) -> Batch:
    """Augments each example by a key of its own: that of its place in the batch of ALL devices."""
    first = 0 if axis_name is None else batch.size * jax.lax.axis_index(axis_name)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(batch.size))
    return jax.vmap(augment)(keys, batch)


def summarize(
    tasks: Sequence[str],
    losses: Float[Array, " t"],
    counts: Float[Array, " t"],
    weights: Float[Array, " t"],
) -> Metrics:
    """The losses and their weights as totals and counts."""
    of_losses = {f"loss/{t}": (losses[i] * counts[i], counts[i]) for i, t in enumerate(tasks)}
    of_weights = {f"weight/{t}": (weights[i], jnp.ones(())) for i, t in enumerate(tasks)}
    return of_losses | of_weights


def make_eval_step(
    model: Model, *, compute_dtype: str = "float32", axis_name: str | None = None
) -> EvalStep:
    """Makes the pure function (params, batch) -> statistics.

    The statistics {task: {name: array}} are sums over the labeled examples, to be merged by adding.
    A task has those of its head's `statistics`, and beside them "loss" and "examples", the number
    of its labeled examples. The head's `summary` turns all of them into metrics: it ignores these
    two, whose ratio is the mean loss.
    """
    tasks = task_names(model)

    def eval_step(params: Params, batch: Batch) -> Statistics:
        options: Any = {"compute_dtype": compute_dtype, "train": False}
        features = represent(model, params, batch, **options)
        predictions = predict(model, params, features, **options)
        losses = loss_sums(model, predictions, batch, tasks)
        counts = label_counts(batch, tasks)
        targets = safe_targets(batch)

        def one(i: int, task: str) -> dict[str, Array]:
            examples = jax.vmap(model.heads[task].statistics)(predictions[task], targets[task])
            reserved = sorted({"loss", "examples"} & set(examples))
            if reserved:
                raise ValueError(
                    f"The head of task {task!r} has statistics named {reserved}, which evaluation "
                    "adds itself; give them other names."
                )
            sums = jax.tree.map(lambda x: masked_sum(x, batch.labeled[task]), examples)
            return sums | {"loss": losses[i], "examples": counts[i]}

        sums = {t: one(i, t) for i, t in enumerate(tasks)}
        return sums if axis_name is None else jax.lax.psum(sums, axis_name)

    return eval_step


def split(batch: Batch, parts: int) -> list[Batch]:
    """Every `parts`-th example, so that the parts are the same on any number of devices.

    Raises:
      ValueError: if the batch of a device cannot be split evenly.
    """
    if batch.size % parts:
        raise ValueError(
            f"This balancer splits a batch into {parts} parts, but a device's batch has "
            f"{batch.size} examples; choose another batch_size."
        )

    def part(i: int) -> Batch:
        return jax.tree.map(lambda x: x[i::parts], batch)

    return [part(i) for i in range(parts)]


def masked_sum(x: Array, mask: Array) -> Array:
    """Sums over the examples under the mask."""
    return jnp.where(jnp.expand_dims(mask, range(1, x.ndim)), x, jnp.zeros_like(x)).sum(0)
