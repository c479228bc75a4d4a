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
from mmjax.types import Batch, Params


def get_task_names(model: Model) -> tuple[str, ...]:
    """Returns the model's tasks in order: by name."""
    return tuple(sorted(model.heads))


def get_loss_names(model: Model) -> tuple[str, ...]:
    """Returns the order of every loss vector: tasks by name, then auxiliary objectives by name."""
    return (*get_task_names(model), *sorted(model.auxiliary))


def _cast_floats(tree: Any, dtype: Any) -> Any:
    """Casts the floating-point arrays of a tree and leaves the others unchanged."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def compute_features(
    model: Model, params: Params, batch: Batch, *, compute_dtype: str, train: bool, rngs: Any = None
) -> dict[str, Any]:
    """Returns each task's features, in `compute_dtype`; in training also each objective's input."""
    (features, seen), _ = model.apply(
        {"params": _cast_floats(params, compute_dtype)},
        _cast_floats(batch.inputs, compute_dtype),
        batch.present,
        batch.lengths,
        train=train,
        rngs=rngs,
        method="represent_and_record",
        mutable=["intermediates"],
    )
    return features | (dict.fromkeys(model.auxiliary, seen) if train else {})


def compute_predictions(
    model: Model,
    params: Params,
    features: dict[str, Any],
    *,
    compute_dtype: str,
    train: bool,
    rngs: Any = None,
) -> dict[str, Array]:
    """Returns the heads' predictions {task: Float32[b, ...]}, computed in `compute_dtype`."""
    variables = {"params": _cast_floats(params, compute_dtype)}
    features = {t: features[t] for t in get_task_names(model)}
    predictions = model.apply(variables, features, train=train, rngs=rngs, method="predict")
    # Losses are float32: sums over a batch lose too much in bfloat16.
    return _cast_floats(predictions, jnp.float32)


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
    params: Params,
    features: dict[str, Any],
    batch: Batch,
    *,
    rngs: Any,
    gather: Callable[[Any], Any],
) -> tuple[Float[Array, " a"], Float[Array, " a"]]:
    """Returns each auxiliary objective's total and count on this device, in float32.

    The objectives get zeros in place of missing inputs, padding and missing targets.
    """
    if not model.auxiliary:
        return jnp.zeros(0), jnp.zeros(0)
    sums: Any = model.apply(
        {"params": params},
        {name: _cast_floats(features[name], jnp.float32) for name in model.auxiliary},
        batch._replace(inputs=zero_missing_inputs(batch), targets=zero_missing_targets(batch)),
        train=True,
        rngs=rngs,
        gather=gather,
        method="compute_objectives",
    )
    totals, counts = zip(*(sums[name] for name in sorted(model.auxiliary)), strict=True)
    return jnp.stack(totals), jnp.stack(counts)
