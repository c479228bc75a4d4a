"""Objectives on the predictions that the branches of late fusion make each on their own."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.auxiliary.base import Gather, Sums
from mmjax.heads.evidential import compute_confidence
from mmjax.types import Batch, BranchOutput, Intermediates


def select_branches(
    objective: Any, seen: Intermediates, tasks: Sequence[str] | None
) -> dict[str, dict[str, BranchOutput]]:
    """Returns {task: {branch: output}} of the named tasks, or of all.

    Raises:
      ValueError: if the model has no branches, or no such task.
    """
    name = type(objective).__name__
    if not seen.branches:
        raise ValueError(f"{name} needs late fusion, which makes branches; use fusion.Late.")
    check_task_names(objective, seen, tasks or ())
    return {t: dict(sorted(seen.branches[t].items())) for t in sorted(tasks or seen.branches)}


def check_task_names(objective: Any, seen: Intermediates, tasks: Sequence[str]) -> None:
    """Raises ValueError if the model does not have one of the tasks."""
    for t in tasks:
        if t not in seen.features:
            raise ValueError(
                f"{type(objective).__name__} names the task {t!r}, but the model has only "
                f"{sorted(seen.features)}."
            )


@dataclasses.dataclass(frozen=True)
class BranchLosses:
    """The task losses of every branch's own prediction under late fusion, summed over branches.

    The loss is the mean over tasks and their labeled examples of Σ_m loss(prediction of branch m)
    over the branches that the example has. Without it a branch learns only as far as the
    combination of the predictions needs it.

    Source: Han et al., ICLR 2021 (arXiv:2102.02051), equation 11; Zhang et al., ICML 2023
    (arXiv:2306.02050), equation 12.

    Attributes:
      tasks: the tasks that count; None is all.

    Example:
      >>> output = BranchOutput(jnp.zeros((2, 3)), jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0]))
      >>> seen = Intermediates({}, None, {}, {}, branches={"digit": {"image": output}})
      >>> batch = Batch({}, {}, {}, {}, {"digit": jnp.ones(2, bool)})
      >>> total, count = BranchLosses()(seen, {}, batch, train=True, gather=lambda x: x)
      >>> float(total), float(count)  # the second example lacks the only branch
      (1.0, 1.0)
    """

    tasks: tuple[str, ...] | None = None

    needs_branches: ClassVar[bool] = True

    def __call__(
        self,
        seen: Intermediates,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Returns the total over this device's labels, and how many have any branch."""
        del predictions, train, gather
        totals, counts = [], []
        for t, branches in select_branches(self, seen, self.tasks).items():
            counted = {m: (x.weight > 0) & batch.labeled[t] for m, x in branches.items()}
            totals += [jnp.where(counted[m], x.loss, 0).sum() for m, x in branches.items()]
            counts.append(jnp.stack(list(counted.values())).any(axis=0).sum())
        return jnp.stack(totals).sum(), jnp.stack(counts).sum().astype(jnp.float32)


def rank_confidences(
    confidence: Float[Array, " b"], loss: Float[Array, " b"], counted: Bool[Array, " b"]
) -> Float[Array, ""]:
    """Computes the mean over pairs with κ_i > κ_j of max(0, c_i - c_j + κ_i - κ_j).

    κ is the loss, as a constant, scaled to 0 at the smallest and 1 at the largest that counts. So
    of two examples the one with the larger loss must be less confident by their difference. 0 if no
    two losses differ.

    Example:
      >>> counted = jnp.ones(2, bool)
      >>> float(rank_confidences(jnp.array([0.5, 2.0]), jnp.array([3.0, 1.0]), counted))
      0.0
      >>> float(rank_confidences(jnp.array([2.0, 2.0]), jnp.array([3.0, 1.0]), counted))
      1.0
    """
    scaled = _scale_to_unit_range(jax.lax.stop_gradient(loss), counted)
    gap = scaled[:, None] - scaled[None]
    pairs = (gap > 0) & counted[:, None] & counted[None]
    hinge = jnp.maximum(confidence[:, None] - confidence[None] + gap, 0)
    count = jnp.maximum(pairs.sum(), 1).astype(confidence.dtype)
    return jnp.where(pairs, hinge, 0).sum() / count


def _scale_to_unit_range(
    values: Float[Array, " b"], counted: Bool[Array, " b"]
) -> Float[Array, " b"]:
    """Scales the values that count to 0 (the smallest) to 1 (the largest); 0 if all are equal."""
    low = jnp.where(counted, values, jnp.inf).min()
    spread = jnp.where(counted, values, -jnp.inf).max() - low
    # Neither infinities, if nothing counts, nor a division by 0, if all values are equal.
    has_spread = jnp.isfinite(spread) & (spread > 0)
    return jnp.where(counted & has_spread, values - low, 0) / jnp.where(has_spread, spread, 1)


@dataclasses.dataclass(frozen=True)
class ConfidenceRanking:
    """QMF's regularizer: a branch must be less confident where its prediction is worse.

    `rank_confidences` of every branch and named task, of `heads.compute_confidence` of its logits,
    summed over branches and tasks. The paper's κ of an example is its mean loss over the epochs so
    far; a batch does not say which examples it holds, so that κ is the loss of this step, whose
    ranks fluctuate more. All pairs of the batch of all devices count, instead of neighbors only.

    Source: Zhang et al., ICML 2023 (arXiv:2306.02050), equation 11. The authors' code subtracts the
    margin κ_i - κ_j where the paper adds it, so that wrong orders within the margin cost nothing.

    Attributes:
      tasks: tasks of classification that count.

    Example:
      >>> output = BranchOutput(jnp.zeros((2, 3)), jnp.array([1.0, 2.0]), jnp.ones(2))
      >>> seen = Intermediates({}, None, {"digit": None}, {}, branches={"digit": {"image": output}})
      >>> batch = Batch({}, {}, {}, {}, {"digit": jnp.ones(2, bool)})
      >>> objective = ConfidenceRanking(("digit",))
      >>> total, count = objective(seen, {}, batch, train=True, gather=lambda x: x)
      >>> float(total), float(count)
      (1.0, 1.0)
    """

    tasks: tuple[str, ...]

    needs_branches: ClassVar[bool] = True
    needs_kinds: ClassVar[tuple[str, ...]] = ("classification",)

    def __call__(
        self,
        seen: Intermediates,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Returns the loss over the batch of all devices, and 1 if any pair counts."""
        del predictions, train
        losses, counts = [], []
        for t, branches in select_branches(self, seen, self.tasks).items():
            for x in branches.values():
                counted = gather((x.weight > 0) & batch.labeled[t])
                confidence, loss = gather(compute_confidence(x.prediction)), gather(x.loss)
                losses.append(rank_confidences(confidence, loss, counted))
                counts.append(counted.sum() >= 2)
        return jnp.stack(losses).sum(), jnp.stack(counts).any().astype(jnp.float32)
