"""Pullbacks of independent parts of a batch, for balancers with `parts` > 1.

The loss of a task is a mean over its labeled examples, so the losses and gradients of a batch are
means of those of its parts, weighted by their numbers of labels. Then no pass is made twice. Every
example's loss must depend on that example alone, as data parallelism requires, too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mmjax.balance.jacobian_rows import expand_to_rows, weighted_sum
from mmjax.balance.pullback import Pullback
from mmjax.parameters import merge_params
from mmjax.train.steps.step_losses import StepLosses, StepSettings, differentiate_batch
from mmjax.types import Batch, Params, Variables, Visible


def differentiate_parts(
    settings: StepSettings,
    count: int,
    params: Params,
    variables: Variables,
    batch: Batch,
    key: Key[Array, ""],
    frozen: Variables | None,
    visible: Mapping[str, Visible] | None = None,
) -> StepLosses:
    """Computes what `differentiate_batch` does, and the pullbacks of parts of the batch.

    The whole batch is differentiated beside its parts only if their mean is not exact: if the model
    has auxiliary objectives, which may compare examples, or variables beside its parameters, such
    as batch statistics; and if modalities are scored.

    Args:
      settings: of the step.
      count: number of parts; 1 is the whole batch alone.
      params: the parameters that train.
      variables: the other variables that the state holds.
      batch: this device's part of the batch of all devices.
      key: random key of this device's dropout; every part has a key of its own.
      frozen: variables that do not train.
      visible: as in `differentiate_batch`.

    Raises:
      ValueError: if the batch of one device cannot be split evenly.
    """
    options = variables, batch, key, frozen, visible
    if count == 1:
        return differentiate_batch(settings, params, *options)
    unscored = settings._replace(scores=None)  # the parts estimate gradients only
    parts = []
    for i, part in enumerate(_split_batch(batch, count)):
        shown = jax.tree.map(lambda x, i=i: x[i::count], visible)
        part_key = jax.random.fold_in(key, i)
        parts.append(
            differentiate_batch(unscored, params, variables, part, part_key, frozen, shown)
        )
    if settings.model.auxiliary or variables or settings.scores is not None:
        whole = differentiate_batch(settings, params, *options)
    else:
        parts = [_compute_jacobian(part) for part in parts]
        whole = _average_parts(parts)
    pullbacks = tuple(part.pullback for part in parts)
    return whole._replace(pullback=whole.pullback._replace(parts=pullbacks))


def _compute_jacobian(part: StepLosses) -> StepLosses:
    """Computes the Jacobian once, for the balancer and for the mean over the parts."""
    rows = part.pullback.jacobian()
    return part._replace(pullback=part.pullback._replace(jacobian=lambda: rows))


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


def _average_parts(parts: Sequence[StepLosses]) -> StepLosses:
    """Returns the losses of a batch from those of its parts, which have no updated variables."""
    counts = jnp.stack([part.counts for part in parts])
    total = counts.sum(axis=0)
    # A task without labels has a loss of 0 in every part.
    shares = counts / jnp.where(total > 0, total, 1.0)[None]
    losses = (shares * jnp.stack([part.losses for part in parts])).sum(axis=0)
    pullback = _average_pullbacks([part.pullback for part in parts], shares)
    return StepLosses(losses, pullback, total, {})


def _average_pullbacks(parts: Sequence[Pullback], shares: Float[Array, "k t"]) -> Pullback:
    """Returns the pullback of sum_k shares_kt loss_kt; it adds rows of the parts' Jacobians."""

    def add(function: Callable[[Pullback, Float[Array, " t"]], Any]) -> Any:
        trees = [function(part, share) for part, share in zip(parts, shares, strict=True)]
        return jax.tree.map(lambda *leaves: sum(leaves[1:], start=leaves[0]), *trees)

    def shared(w: Float[Array, " t"]) -> Params:
        return add(lambda part, share: weighted_sum(part.jacobian(), w * share))

    def task_specific(w: Float[Array, " t"]) -> Params:
        return add(lambda part, share: part.task_specific(w * share))

    def scale_rows(part: Pullback, share: Float[Array, " t"]) -> Params:
        return jax.tree.map(lambda x: expand_to_rows(share, x) * x, part.jacobian())

    def scale_gram(part: Pullback, share: Float[Array, " t"]) -> Float[Array, "t t"]:
        # Parts have features of their own, so that inner products between parts are 0.
        return jnp.outer(share, share) * part.feature_gram()

    return Pullback(
        gradient=lambda w: merge_params(shared(w), task_specific(w)),
        shared=shared,
        task_specific=task_specific,
        jacobian=lambda: add(scale_rows),
        feature_gram=lambda: add(scale_gram),
        params=parts[0].params,
    )
