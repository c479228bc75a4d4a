"""The forward pass: features, predictions, and the sums of losses on one device.

It has two stages, since balancers differentiate them separately: features are what the heads share.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mmjax.heads.class_weights import get_training_loss
from mmjax.masks import zero_missing_inputs, zero_missing_targets
from mmjax.model import Model
from mmjax.train.hardware.split_arrays import gather_arrays
from mmjax.types import Batch, Variables, Visible


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
    """Casts the parameters and leaves the other variables, such as batch statistics, unchanged.

    Parameters that are split over devices are gathered in that type.
    """
    return variables | {"params": gather_arrays(cast_floats(variables["params"], dtype))}


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
    options: Any = {"train": train, "rngs": rngs, "axis_name": axis_name}
    return compute_scored_features(
        model, variables, batch, compute_dtype=compute_dtype, scored=(), visible=None, **options
    )[:2]


def compute_scored_features(
    model: Model,
    variables: Variables,
    batch: Batch,
    *,
    compute_dtype: str,
    train: bool,
    scored: Sequence[tuple[str, ...]],
    visible: Mapping[str, Visible] | None,
    rngs: Any = None,
    axis_name: str | None = None,
    record: bool | None = None,
) -> tuple[dict[str, Any], Variables, dict[str, dict[str, Any]]]:
    """Computes features as `compute_features` does, and those of subsets of the modalities.

    Args:
      model: the model.
      variables: as of `Model.apply`.
      batch: the batch.
      compute_dtype: "float32" or "bfloat16".
      train: whether this is training.
      scored: subsets of the modalities.
      visible: which modalities each example shows; see `Model.represent_and_record`.
      rngs: random keys.
      axis_name: name of the device axis.
      record: whether the features include each objective's input; None: in training.

    Returns:
      Features, variables, and {subset: features from it, as at test and without a gradient}.
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
        visible=visible,
        scored=scored,
        method="represent_and_record",
        mutable=["intermediates", *mutable],
    )
    of_subsets = jax.lax.stop_gradient(seen[0].scored)
    if train if record is None else record:
        seen = tuple(x._replace(scored={}) for x in seen)
        features = features | dict.fromkeys(model.auxiliary, seen)
    return features, {name: updates[name] for name in mutable}, of_subsets


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

    Returns them and the variables that are not parameters, as `compute_features` does.
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
    model: Model,
    predictions: dict[str, Array],
    batch: Batch,
    tasks: Sequence[str],
    weights: Mapping[str, Float[Array, " b"]] = types.MappingProxyType({}),
) -> Float[Array, " t"]:
    """Returns each task's loss, summed over its labeled examples; see `weigh_labels`."""
    targets = zero_missing_targets(batch)

    def sum_task_losses(task: str) -> Array:
        head, data = model.heads[task], (predictions[task], targets[task])
        if task not in weights:
            return jnp.where(batch.labeled[task], jax.vmap(head.example_loss)(*data), 0.0).sum()
        losses = jax.vmap(get_training_loss(head))(*data)
        # The loss where the weight is 0, as it is without a label, may be anything.
        return jnp.where(weights[task] > 0, weights[task] * losses, 0.0).sum()

    return jnp.stack([sum_task_losses(t) for t in tasks])


def weigh_labels(model: Model, batch: Batch) -> dict[str, Float[Array, " b"]]:
    """Computes the weight of each example's label in the loss of its task; 0 without a label.

    It is the weight of the example times that of its class. Tasks whose labels all count the same
    are left out.
    """
    weights = {t: w.astype(jnp.float32) for t, w in batch.weights.items() if t in model.heads}
    for t, head in model.heads.items():
        if getattr(head, "class_weights", None) is not None:
            of_class = jax.vmap(head.weigh_target)(zero_missing_targets(batch)[t])
            weights[t] = weights[t] * of_class if t in weights else of_class
    return {t: jnp.where(batch.labeled[t], w, 0.0) for t, w in weights.items()}


def count_labels(
    batch: Batch,
    tasks: Sequence[str],
    weights: Mapping[str, Float[Array, " b"]] = types.MappingProxyType({}),
) -> Float[Array, " t"]:
    """Returns the number of labeled examples per task, or the sum of their weights."""
    counts = {t: batch.labeled[t].sum().astype(jnp.float32) for t in tasks if t not in weights}
    return jnp.stack([weights[t].sum() if t in weights else counts[t] for t in tasks])


def divide_by_counts(
    totals: Float[Array, " t"], counts: Float[Array, " t"], is_weighted: Sequence[bool]
) -> Float[Array, " t"]:
    """Returns mean losses; a loss without any label is 0, not 0 / 0.

    Args:
      totals: sums of losses.
      counts: numbers of labels, or the sums of their weights, which may be below 1.
      is_weighted: which of the counts are sums of weights.
    """
    divisors = jnp.maximum(counts, 1.0)
    if any(is_weighted):
        divisors = jnp.where(np.array(is_weighted) & (counts > 0), counts, divisors)
    return totals / divisors


def sum_objectives(
    model: Model,
    variables: Variables,
    features: dict[str, Any],
    batch: Batch,
    *,
    rngs: Any,
    gather: Callable[[Any], Any],
    axis_name: str | None = None,
    train: bool = True,
) -> tuple[Float[Array, " a"], Float[Array, " a"], Variables]:
    """Computes each auxiliary objective's total and count on this device, in float32.

    The objectives get zeros in place of missing inputs, padding and missing targets.

    Returns:
      Totals, counts, and the variables that are not parameters, as the objectives update them.
    """
    mutable = _list_mutable(variables) if train else []
    if not model.auxiliary:
        return jnp.zeros(0), jnp.zeros(0), {name: variables[name] for name in mutable}
    sums, updates = model.apply(
        variables | {"params": gather_arrays(variables["params"])},
        {name: cast_floats(features[name], jnp.float32) for name in model.auxiliary},
        batch._replace(inputs=zero_missing_inputs(batch), targets=zero_missing_targets(batch)),
        train=train,
        rngs=rngs,
        gather=gather,
        axis_name=axis_name,
        method="compute_objectives",
        mutable=mutable,
    )
    totals, counts = zip(*(sums[name] for name in sorted(model.auxiliary)), strict=True)
    return jnp.stack(totals), jnp.stack(counts), dict(updates)
