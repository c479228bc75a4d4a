"""PMR: class prototypes per modality speed the slow modality up."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.auxiliary.base import Gather, Sums
from mmjax.fusion.pooling import pool
from mmjax.modalities.imbalance.modulation.score_ratios import compare_with_others
from mmjax.modalities.imbalance.objectives.unimodal_loss import check_task
from mmjax.types import Batch, Intermediates


class PrototypeRebalance(nn.Module):
    """Cross-entropy to class prototypes for slow modalities, entropy for fast ones (PMR).

    A prototype is a modality's mean token over all examples in one class, averaged over steps
    with `momentum`. An example z of class y has the loss -log softmax_c(-‖z - prototype_c‖) at y.
    With s_m the mean probability that the prototypes of modality m give to the true class and ρ_m
    its ratio to the mean of the others, a modality weighs clip(1 / ρ_m - 1, 0, 1): 0 if it leads.
    In the first `entropy_steps` steps, the mean entropy of these probabilities, weighed by
    `entropy` clip(ρ_m - 1, 0, 1), is subtracted for those that lead, so the loss can be negative.
    The loss is the sum over modalities; weights and prototypes are constants of the step.

    The paper computes the prototypes anew in every epoch, from a part of the training examples.

    Source: Fan et al., "PMR: Prototypical modal rebalance for multimodal learning", CVPR 2023
    (arXiv:2211.07089), for two modalities.

    Attributes:
      task: a task with one class per example.
      classes: number of its classes.
      momentum: of the prototypes, from 0 to 1.
      entropy: weight of the entropy.
      entropy_steps: number of first steps with the entropy; 0 for none.

    Example:
      >>> objective = PrototypeRebalance("digit", classes=10)
      >>> objective.momentum
      0.9
    """

    task: str
    classes: int
    momentum: float = 0.9
    entropy: float = 0.1
    entropy_steps: int = 0

    needs_kinds: ClassVar[tuple[str, ...]] = ("classification", "ordinal")

    @nn.compact
    def __call__(
        self,
        seen: Intermediates,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Returns (loss, 1), the same on each device, or (0, 0) without a labeled example."""
        check_task(self, self.task, predictions)
        labels, labeled = gather(batch.targets[self.task]), gather(batch.labeled[self.task])
        step = self.variable("prototypes", "step", jnp.zeros, (), jnp.int32)
        losses, entropies, scores, counts = [], [], [], []
        for m, tokens in sorted(seen.tokens.items()):
            vectors, present = map(gather, pool(tokens))
            counted = present & labeled
            log_p = self._classify(m, vectors, labels, counted, train=train)
            truth = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
            entropy = -(jnp.exp(log_p) * log_p).sum(axis=1)
            number = counted.sum()
            share = jnp.where(counted, 1 / jnp.maximum(number, 1).astype(log_p.dtype), 0)
            losses.append(-(share * truth).sum())
            entropies.append((share * entropy).sum())
            scores.append((share * jnp.exp(truth)).sum())
            counts.append(number)
        has_score = jnp.stack(counts) > 0
        ratio = jax.lax.stop_gradient(compare_with_others(jnp.stack(scores), has_score))
        tiny = jnp.finfo(ratio.dtype).tiny
        slow = jnp.clip(1 / jnp.maximum(ratio, tiny) - 1, 0, 1)
        fast = self.entropy * jnp.clip(ratio - 1, 0, 1) * (step.value < self.entropy_steps)
        if train and not self.is_initializing():
            step.value = step.value + 1
        total = (slow * jnp.stack(losses) - fast * jnp.stack(entropies)).sum()
        any_score = has_score.any().astype(jnp.float32)
        return any_score * total, any_score

    def _classify(
        self,
        modality: str,
        vectors: Float[Array, "b d"],
        labels: Int[Array, " b"],
        counted: Bool[Array, " b"],
        *,
        train: bool,
    ) -> Float[Array, "b c"]:
        """Returns log-probabilities by the distances to the prototypes, which it then updates."""
        shape = (self.classes, vectors.shape[1])
        means = self.variable("prototypes", f"means_{modality}", jnp.zeros, shape)
        known = self.variable("prototypes", f"known_{modality}", jnp.zeros, shape[:1], bool)
        rows = jax.nn.one_hot(labels, self.classes) * counted[:, None]
        number = rows.sum(axis=0)
        fixed = jax.lax.stop_gradient(vectors).astype(jnp.float32)
        batch_means = rows.T @ fixed / jnp.maximum(number, 1)[:, None]
        # A class that was never seen before starts at its mean in this batch.
        memory = jnp.where(known.value, self.momentum, 0.0)[:, None]
        updated = memory * means.value + (1 - memory) * batch_means
        new = jnp.where((number > 0)[:, None], updated, means.value)
        is_known = known.value | (number > 0)
        if train and not self.is_initializing():
            means.value, known.value = new, is_known
        square = ((vectors[:, None] - new[None]) ** 2).sum(axis=-1)
        # √0 has an infinite slope, so the square is made safe before the root.
        distance = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
        lowest = jnp.finfo(jnp.float32).min / 2  # finite: -inf only would make NaN
        return jax.nn.log_softmax(jnp.where(is_known[None], -distance, lowest), axis=-1)
