"""The forward pass: features, predictions, and the sums of losses on one device.

It has two stages, since balancers differentiate them separately: features are what the heads share.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.masks import zero_missing_inputs, zero_missing_targets
from mmjax.model import Model
from mmjax.types import Batch, Variables


def get_task_names(model: Model) -> tuple[str, ...]:
    """Returns the model's tasks in order: by name."""
    return tuple(sorted(model.heads))


def get_loss_names(model: Model) -> tuple[str, ...]:
    """Returns the order of every loss vector: tasks by name, then auxiliary objectives by name."""
    return (*get_task_names(model), *sorted(model.auxiliary))


def cast_floats(tree: Any, dtype: Any) -> Any:
    """Casts the floating-point arrays of a tree and leaves the others unchanged."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def cast_params(variables: Variables, dtype: Any) -> Variables:
    """Casts the parameters and leaves the other variables, such as batch statistics, unchanged."""
    return variables | {"params": cast_floats(variables["params"], dtype)}


def _list_mutable(variables: Variables) -> list[str]:
    """Returns the collections that training may update."""
    return sorted(set(variables) - {"params"})


def compute_features(
    model: Model,
    variables: Variables,
    batch: Batch,
    *,
    compute_dtype: str,
    train: bool,
    rngs: Any = None,
    axis_name: str | None = None,
) -> tuple[dict[str, Any], Variables]:
    """Computes each task's features, in `compute_dtype`; in training also each objective's input.

    Returns:
      The features, and the variables that are not parameters, in training as the call updates them.
    """
    mutable = _list_mutable(variables) if train else []
    (features, seen), updates = model.apply(
        cast_params(variables, compute_dtype),
        cast_floats(batch.inputs, compute_dtype),
        batch.present,
        batch.lengths,
        train=train,
        rngs=rngs,
        axis_name=axis_name,
        method="represent_and_record",
        mutable=["intermediates", *mutable],
    )
    features = features | (dict.fromkeys(model.auxiliary, seen) if train else {})
    return features, {name: updates[name] for name in mutable}


def compute_predictions(
    model: Model,
    variables: Variables,
    features: dict[str, Any],
    *,
    compute_dtype: str,
    train: bool,
    rngs: Any = None,
    axis_name: str | None = None,
) -> tuple[dict[str, Array], Variables]:
    """Computes the heads' predictions {task: Float32[b, ...]}, in `compute_dtype`.

    Returns:
      The predictions, and the variables that are not parameters, as `compute_features` does.
    """
    predictions, updates = model.apply(
        cast_params(variables, compute_dtype),
        {t: features[t] for t in get_task_names(model)},
        train=train,
        rngs=rngs,
        axis_name=axis_name,
        method="predict",
        mutable=_list_mutable(variables) if train else [],
    )
    # Losses are float32: sums over a batch lose too much in bfloat16.
    return cast_floats(predictions, jnp.float32), dict(updates)


def sum_losses(
    model: Model, predictions: dict[str, Array], batch: Batch, tasks: Sequence[str]
) -> Float[Array, " t"]:
    """Returns each task's loss, summed over its labeled examples."""
    targets = zero_missing_targets(batch)

    def sum_task_losses(task: str) -> Array:
        losses = jax.vmap(model.heads[task].example_loss)(predictions[task], targets[task])
        return jnp.where(batch.labeled[task], losses, 0.0).sum()

    return jnp.stack([sum_task_losses(t) for t in tasks])


def count_labels(batch: Batch, tasks: Sequence[str]) -> Float[Array, " t"]:
    """Returns the number of labeled examples per task."""
    return jnp.stack([batch.labeled[t].sum().astype(jnp.float32) for t in tasks])


def sum_objectives(
    model: Model,
    variables: Variables,
    features: dict[str, Any],
    batch: Batch,
    *,
    rngs: Any,
    gather: Callable[[Any], Any],
    axis_name: str | None = None,
) -> tuple[Float[Array, " a"], Float[Array, " a"], Variables]:
    """Computes each auxiliary objective's total and count on this device, in float32.

    The objectives get zeros in place of missing inputs, padding and missing targets.

    Returns:
      Totals, counts, and the variables that are not parameters, as the objectives update them.
    """
    mutable = _list_mutable(variables)
    if not model.auxiliary:
        return jnp.zeros(0), jnp.zeros(0), {name: variables[name] for name in mutable}
    sums, updates = model.apply(
        variables,
        {name: cast_floats(features[name], jnp.float32) for name in model.auxiliary},
        batch._replace(inputs=zero_missing_inputs(batch), targets=zero_missing_targets(batch)),
        train=True,
        rngs=rngs,
        gather=gather,
        axis_name=axis_name,
        method="compute_objectives",
        mutable=mutable,
    )
    totals, counts = zip(*(sums[name] for name in sorted(model.auxiliary)), strict=True)
    return jnp.stack(totals), jnp.stack(counts), dict(updates)


def join_variables(
    old: Variables, of_features: Variables, of_heads: Variables, of_objectives: Variables
) -> Variables:
    """Joins the variables that a step's three calls update, each part's from the call that owns it.

    So every part is updated once, although objectives call the heads again.

    Raises:
      ValueError: if training changes the structure or the shapes of the variables.
    """

    def choose_call(part: str) -> Variables:
        if part.startswith(("heads_", "branch_heads_")):
            return of_heads
        return of_objectives if part.startswith("auxiliary_") else of_features

    new = {
        name: {part: choose_call(part)[name][part] for part in parts}
        for name, parts in of_features.items()
    }
    before, after = (jax.tree.map(jnp.shape, tree) for tree in (old, new))
    if before != after:
        raise ValueError(
            f"A training step turns the model's variables of shapes {before} into {after}. Only "
            "variables of constant shapes can be carried; a value to record is sown as "
            '"intermediates".'
        )
    return new
