"""CGGM's second part: turns the gradient towards the modalities that lag."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.auxiliary.base import Gather, Sums
from mmjax.heads.class_weights import get_training_loss
from mmjax.modalities.imbalance.modulation.cggm import compute_lag_shares
from mmjax.modalities.imbalance.objectives.unimodal_loss import (
    check_task,
    is_present,
    weigh_examples,
)
from mmjax.types import Batch, Intermediates


class GradientDirection(nn.Module):
    """Makes the task's gradient agree with those of the modalities that lag (CGGM).

    The loss is strength / M Σ_m B_m (1 - cos(g, g_m)). The gradients g and g_m of the task's loss,
    by the whole model and by modality m alone, are those at the predictions of the examples that
    have m and a label. B_m is `compute_lag_shares` of the modalities' scores in this and the step
    before. The g_m and B_m are constants of the step. The loss has no labels where B is unknown:
    in the first step, and with fewer than two scored modalities.

    In the paper the gradients are those of the weights of two last layers, which have one shape
    only if the layers' inputs have one width; the authors' code compares the weights themselves.

    Source: Guo et al., "Classifier-guided gradient modulation for enhanced multimodal learning",
    NeurIPS 2024 (arXiv:2411.01409), for one task.

    Attributes:
      task: the task.
      head: the task's head; only its loss is used.
      strength: weight of the loss; 0.05 to 0.2 in the authors' code.

    Example:
      >>> from mmjax import heads
      >>> objective = GradientDirection("digit", heads.Classification(10))
      >>> objective.strength, objective.subsets(["a", "b"])
      (0.2, [('a',), ('b',)])
    """

    task: str
    head: Any
    strength: float = 0.2

    @nn.nowrap
    def subsets(self, modalities: Sequence[str]) -> list[tuple[str, ...]]:
        """Returns the subsets whose predictions the objective needs: each modality alone."""
        return [(m,) for m in modalities]

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
        """Returns (loss, 1), the same on each device, or (0, 0) where B is unknown."""
        check_task(self, self.task, predictions)
        loss, targets = get_training_loss(self.head), batch.targets[self.task]
        whole = differentiate_at_predictions(loss, predictions[self.task], targets)
        names, cosines, scores, counts = sorted(seen.tokens), [], [], []
        for m in names:
            weights = weigh_examples(batch, self.task, is_present(seen, m), self.head)
            prediction = jax.lax.stop_gradient(seen.subsets[m][self.task])
            alone = differentiate_at_predictions(loss, prediction, targets)
            losses = jax.vmap(loss)(prediction, targets)
            likelihoods = jnp.exp(-jnp.where(weights > 0, losses, 0.0))
            rows = jnp.where(weights[:, None] > 0, jnp.stack([whole, alone]), 0.0)
            cosines.append(_compute_cosine(*_gather_products(rows, weights, gather)))
            scores.append(gather(weights * likelihoods).sum())
            counts.append(gather(weights).sum())
        count = jnp.stack(counts)
        means = jnp.stack(scores) / jnp.where(count > 0, count, 1.0)
        comparable, progress = self._measure_progress(means, count > 0, train=train)
        shares = compute_lag_shares(progress, comparable)
        known = (comparable.sum() > 1).astype(jnp.float32)
        total = self.strength / len(names) * (shares * (1 - jnp.stack(cosines))).sum()
        return known * total, known

    def _measure_progress(
        self, means: Float[Array, " m"], has_score: Bool[Array, " m"], *, train: bool
    ) -> tuple[Bool[Array, " m"], Float[Array, " m"]]:
        """Returns where the progress since the step before is known, and the progress."""
        scores = self.variable("direction", "scores", jnp.zeros_like, means)
        known = self.variable("direction", "known", jnp.zeros_like, has_score)
        comparable, progress = has_score & known.value, means - scores.value
        if train and not self.is_initializing():
            scores.value = jnp.where(has_score, means, scores.value)
            known.value = known.value | has_score
        return comparable, progress


def differentiate_at_predictions(
    loss: Callable[[Any, Any], Array], predictions: Float[Array, "b ..."], targets: Any
) -> Float[Array, "b c"]:
    """Returns the gradient of each example's loss at its prediction.

    Example:
      >>> from mmjax.losses import squared_error
      >>> differentiate_at_predictions(squared_error, jnp.array([3.0]), jnp.array([1.0])).tolist()
      [[4.0]]
    """
    rows = jax.vmap(jax.grad(loss))(predictions, targets)
    return rows.reshape(len(rows), -1)


def _gather_products(
    rows: Float[Array, "2 b c"], weights: Float[Array, " b"], gather: Gather
) -> tuple[Array, Array, Array]:
    """Returns ⟨g, g_m⟩, |g|² and |g_m|² over the examples of all devices."""
    whole, alone = rows * weights[None, :, None]
    products = jnp.stack([whole * alone, whole**2, alone**2]).sum(axis=-1)
    dot, square, other = gather(products.T).sum(axis=0)
    return dot, square, other


def _compute_cosine(
    dot: Float[Array, ""], square: Float[Array, ""], other: Float[Array, ""]
) -> Float[Array, ""]:
    """Returns the cosine; 1, which asks for no change, if one of the gradients is 0."""
    product = square * other
    # √0 has an infinite slope, so the product is made safe before the root.
    safe = jnp.where(product > 0, product, 1.0)
    return jnp.where(product > 0, dot / jnp.sqrt(safe), 1.0)
