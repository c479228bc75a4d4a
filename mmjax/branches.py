"""Branches of late fusion: one representation per modality, each with a head of its own."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.layers.batch_norm import restrict_batch_statistics
from mmjax.masks import expand_mask
from mmjax.sharing import Copies
from mmjax.types import Branches, BranchOutput


def _is_branches(x: Any) -> bool:
    """Returns whether late fusion made this."""
    return isinstance(x, Branches)


def select_branch(fused: Branches | Copies, modality: str) -> Any:
    """Returns one modality's branch, or the copies of it."""
    return jax.tree.map(lambda x: x.values[modality], fused, is_leaf=_is_branches)


def compute_branch_weights(fused: Any, task: int, tasks: int) -> dict[str, Float[Array, " b"]]:
    """Returns a task's weights of the branches; {} if the backbone does not branch.

    With copies of the backbone it is the mean over those that serve the task.
    """
    if not isinstance(fused, Copies):
        return fused.weights if _is_branches(fused) else {}
    # Stacks of weights [copies b] of the copies that serve the task: all shared ones and its own.
    stacks = [fused.shared.weights] if _is_branches(fused.shared) else []
    if _is_branches(fused.own):
        stacks.append(jax.tree.map(lambda w: jnp.split(w, tasks)[task], fused.own.weights))
    return jax.tree.map(lambda *w: jnp.concatenate(w).mean(axis=0), *stacks) if stacks else {}


def apply_sharing(
    sharing: nn.Module,
    branch_sharing: Mapping[str, nn.Module],
    fused: Any,
    tasks: Sequence[str],
    *,
    train: bool,
) -> dict[str, Any]:
    """Applies the sharing; under late fusion, each branch's own: {task: features or `Branches`}."""
    weights = [compute_branch_weights(fused, i, len(tasks)) for i in range(len(tasks))]
    if not weights[0]:
        features: dict[str, Any] = sharing(fused, tasks, train=train)
        return features
    branches: dict[str, dict[str, Any]] = {}
    for m in weights[0]:
        # The rows of absent modalities, which have weight 0, must not enter the statistics.
        with restrict_batch_statistics(weights[0][m] > 0):
            branches[m] = branch_sharing[m](select_branch(fused, m), tasks, train=train)
    by_task = {}
    for task, task_weights in zip(tasks, weights, strict=True):
        by_task[task] = Branches(_select_task(branches, task), task_weights)
    return by_task


def _select_task(branches: Mapping[str, Mapping[str, Any]], task: str) -> dict[str, Any]:
    """Returns one task's entry of each branch: {branch: entry} of {branch: {task: entry}}."""
    return {m: of_tasks[task] for m, of_tasks in branches.items()}


def apply_head(
    heads: Mapping[str, nn.Module],
    branch_heads: Mapping[str, Mapping[str, nn.Module]],
    task: str,
    features: Any,
    *,
    train: bool,
) -> Float[Array, "b ..."]:
    """Applies a task's head; under `Branches`, combines the predictions of the branches' heads."""
    if isinstance(features, Branches):
        return combine_branches(_select_task(branch_heads, task), features, train=train)
    prediction: Array = heads[task](features, train=train)
    return prediction


def predict_branches(
    heads: Mapping[str, nn.Module], branches: Branches, *, train: bool
) -> Iterator[tuple[str, Float[Array, "b ..."]]]:
    """Yields the name and the prediction of every branch, each by a head of its own."""
    for m, values in branches.values.items():
        # A branch with weight 0 belongs to an absent modality; its rows must not enter the
        # statistics.
        with restrict_batch_statistics(branches.weights[m] > 0):
            prediction = heads[m](values, train=train)
        yield m, prediction


def combine_branches(
    heads: Mapping[str, nn.Module], branches: Branches, *, train: bool
) -> Float[Array, "b ..."]:
    """Returns what the head's `combine` makes of the predictions, or else their weighted mean."""
    predictions = predict_branches(heads, branches, train=train)
    combine: Any = getattr(next(iter(heads.values())), "combine", None)
    if combine is not None:
        combined: Array = combine(dict(predictions), branches.weights)
        return combined
    total: Any = 0.0
    for m, prediction in predictions:
        total += expand_mask(branches.weights[m], prediction.ndim) * prediction
    return total


def evaluate_branches(
    heads: Mapping[str, Mapping[str, Any]],
    features: Mapping[str, Any],
    targets: Mapping[str, Any],
    *,
    train: bool,
) -> dict[str, dict[str, BranchOutput]]:
    """Returns each branch's own prediction and loss per task; {} without late fusion.

    Args:
      heads: {branch: {task: head}}.
      features: {task: features}; those of tasks that are not `Branches` are left out.
      targets: {task: [b ...]}, with zeros for missing labels.
      train: whether dropout is active.
    """
    outputs: dict[str, dict[str, BranchOutput]] = {}
    for t, x in features.items():
        if not isinstance(x, Branches):
            continue
        outputs[t] = {}
        for m, y in predict_branches(_select_task(heads, t), x, train=train):
            losses = jax.vmap(heads[m][t].example_loss)(y, targets[t])
            outputs[t][m] = BranchOutput(y, losses, x.weights[m])
    return outputs


def list_branches(encoders: Iterable[str], fusion: nn.Module) -> tuple[str, ...]:
    """Lists the branches that late fusion may make: the modalities and the fusion's extra ones.

    Raises:
      ValueError: if a modality has the name of an extra branch.
    """
    extra = getattr(fusion, "extra_branches", ())
    for name in sorted(set(encoders) & set(extra)):
        raise ValueError(
            f"The modality name {name!r} is that of a branch that {type(fusion).__name__} adds; "
            "rename the modality."
        )
    return (*encoders, *extra)
