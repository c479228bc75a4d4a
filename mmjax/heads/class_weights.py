"""Weights of classes: given, or learned from the frequencies in the training labels.

Every rule gives rare classes more weight. Counts are those of the labels, whatever the weights of
their examples are.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, TypeGuard

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Num, Shaped

from mmjax.heads.base import Loss, mean_weighted_loss, split_class_labels


@dataclasses.dataclass(frozen=True)
class EffectiveNumber:
    """Weighs a class of n labels by (1 - β) / (1 - β^n), the inverse of its effective number.

    β = 0 weighs all classes the same, and β → 1 as "balanced" does.

    Source: Cui et al., CVPR 2019 (arXiv:1901.05555), equation 3; β is 0.9 to 0.9999 there.

    Attributes:
      beta: the share of a new example that is already covered by the others, at least 0, below 1.

    Example:
      >>> weights = learn_class_weights(EffectiveNumber(0.5), np.array([1.0, 2.0]))
      >>> print(np.round(weights, 3))  # 1 to 1 / 1.5
      [1.2 0.8]
    """

    beta: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.beta < 1:
            raise ValueError(f"EffectiveNumber.beta is {self.beta}; it must be 0 to below 1.")


Weighting = Literal["balanced"] | EffectiveNumber
ClassWeights = Weighting | Sequence[float] | None


def check_class_weights(field: str, weights: ClassWeights, classes: int) -> None:
    """Raises ValueError unless they are a rule, or one weight of at least 0 per class."""
    if weights is None or isinstance(weights, EffectiveNumber):
        return
    if isinstance(weights, str):
        if weights != "balanced":
            raise ValueError(
                f"{field} is {weights!r}; it must be 'balanced', an EffectiveNumber or one number "
                "per class."
            )
        return
    if len(weights) != classes:
        raise ValueError(f"{field} has {len(weights)} numbers, but there are {classes} classes.")
    if not all(w >= 0 for w in weights) or not any(w > 0 for w in weights):
        raise ValueError(f"{field} is {weights}; no weight may be negative, nor all be 0.")


def is_learned_weighting(weights: ClassWeights) -> TypeGuard[Weighting]:
    """Returns whether the weights are a rule that still has to see the training labels."""
    return isinstance(weights, str | EffectiveNumber)


def make_weight_array(field: str, weights: ClassWeights) -> Float[Array, " c"]:
    """Returns the weights as an array.

    Raises:
      ValueError: if they are not learned yet.
    """
    if weights is None or is_learned_weighting(weights):
        raise ValueError(
            f"{field} is {weights!r}, which an Experiment computes from its training labels; "
            "outside of one, give one number per class."
        )
    return jnp.asarray(weights, jnp.float32)


class ClassWeighing:
    """What heads with `classes` and `class_weights` have in common: weights by the class.

    The heads are Flax modules; this is a part of them without fields.
    """

    classes: int
    class_weights: ClassWeights

    def weigh_target(self, target: Num[Array, "*c"]) -> Float[Array, ""]:
        """Returns the weight of one example's class; for soft labels, the mean under the shares."""
        weights = make_weight_array(f"{type(self).__name__}.class_weights", self.class_weights)
        return weights @ target.astype(weights.dtype) if target.ndim else weights[target]

    def needs_labels(self) -> bool:
        """Returns whether `learn_from_labels` has something to compute."""
        return is_learned_weighting(self.class_weights)

    def learn_from_labels(self, targets: Num[np.ndarray, "n *c"]) -> "ClassWeighing":
        """Returns the head with the weights that its rule gives to the training targets."""
        counts = self._count_targets(targets)
        if not is_learned_weighting(self.class_weights) or len(counts) != self.classes:
            return self  # the check of the experiment refuses targets of other classes
        head: Any = self
        learned: ClassWeighing = head.clone(
            class_weights=learn_class_weights(self.class_weights, counts)
        )
        return learned

    def _count_targets(self, targets: Num[np.ndarray, "n *c"]) -> Float[np.ndarray, " c"]:
        """Counts the labels of each class."""
        return count_classes(targets, self.classes)


class PositionWeighing(ClassWeighing):
    """What heads with one class per token or pixel have in common: weights by those classes.

    An example's training loss is the mean over its labeled positions under their weights, and the
    example counts as much as its mean weight. So each example has the same influence as without
    weights, whatever the number of its positions. One without a labeled position does not count.
    """

    loss: Loss

    def weigh_target(self, target: Integer[Array, "..."]) -> Float[Array, ""]:
        """Returns the mean weight of one example's labeled positions; 0 if it has none."""
        count = jnp.maximum((target >= 0).sum(), 1)
        return self._weigh_positions(target).sum() / count

    def weighted_loss(
        self, prediction: Float[Array, "... c"], target: Integer[Array, "..."]
    ) -> Float[Array, ""]:
        """Computes the loss of one example in training, a mean under the positions' weights."""
        classes, _ = split_class_labels(target)
        weights = self._weigh_positions(target)
        return mean_weighted_loss(self.loss, prediction, classes, weights)

    def _weigh_positions(self, target: Integer[Array, "..."]) -> Float[Array, "..."]:
        """Returns the weight of each position's class; 0 without a label."""
        weights = make_weight_array(f"{type(self).__name__}.class_weights", self.class_weights)
        classes, is_labeled = split_class_labels(target)
        return jnp.where(is_labeled, weights[classes], 0.0)

    def _count_targets(self, targets: Integer[np.ndarray, "n *p"]) -> Float[np.ndarray, " c"]:
        """Counts the labeled positions of each class."""
        return count_classes(targets[targets >= 0], self.classes)


def get_training_loss(head: Any) -> Loss:
    """Returns the head's loss of one example in training, before the weight of the example.

    Only the class weights of heads with several positions per example change it.

    Example:
      >>> from mmjax.heads import SequenceLabeling
      >>> head = SequenceLabeling(2, class_weights=(1.0, 3.0))
      >>> logits = jnp.log(jnp.array([[0.5, 0.5], [0.75, 0.25]]))
      >>> target = jnp.array([0, 1])
      >>> print(f"{get_training_loss(head)(logits, target):.3f}")  # (ln 2 + 3 ln 4) / 4
      1.213
    """
    is_weighted = getattr(head, "class_weights", None) is not None
    loss: Loss = getattr(head, "weighted_loss", head.example_loss)
    return loss if is_weighted else head.example_loss


def count_classes(targets: Num[np.ndarray, "n *c"], classes: int) -> Float[np.ndarray, " c"]:
    """Counts the labels of each class; of soft labels [n c] it sums the shares."""
    if targets.ndim > 1:
        return np.asarray(targets.sum(axis=0, dtype=np.float64))
    return np.bincount(targets.astype(np.int64), minlength=classes).astype(np.float64)


def learn_class_weights(weights: Weighting, counts: Float[np.ndarray, " c"]) -> tuple[float, ...]:
    """Computes the weights of classes from the numbers of their labels.

    "balanced" gives n / (k n_c) to a class with n_c of n labels, as scikit-learn does; those of an
    `EffectiveNumber` sum to k. Both count the k classes that have labels, and a class without any
    has the weight 0.

    Args:
      weights: the rule.
      counts: number of training labels per class.

    Example:
      >>> learn_class_weights("balanced", np.array([1.0, 3.0]))
      (2.0, 0.6666666666666666)
    """
    has_labels = counts > 0
    effective = _count_effective(weights, np.where(has_labels, counts, 1.0))
    inverse = np.where(has_labels, 1 / effective, 0.0)
    if weights == "balanced":
        return tuple((inverse * counts.sum() / max(has_labels.sum(), 1)).tolist())
    return tuple((inverse * has_labels.sum() / max(inverse.sum(), 1e-300)).tolist())


def learn_positive_weights(
    weights: Weighting, targets: Shaped[np.ndarray, "n c"]
) -> tuple[float, ...]:
    """Computes the weight of each class's positives against its negatives.

    It is the ratio of the (effective) numbers of negatives and positives, or 1 if a class has only
    one of the two.

    Args:
      weights: the rule.
      targets: 0 or 1, or -1 for unknown labels.

    Example:
      >>> learn_positive_weights("balanced", np.array([[1, 1], [0, 1], [0, -1], [0, 1]]))
      (3.0, 1.0)
    """
    positives, negatives = ((targets == value).sum(axis=0) for value in (1, 0))
    has_both = (positives > 0) & (negatives > 0)
    one = np.ones(len(has_both))
    more = _count_effective(weights, np.where(has_both, negatives, one))
    fewer = _count_effective(weights, np.where(has_both, positives, one))
    return tuple((more / fewer).tolist())


def _count_effective(
    weights: Weighting, counts: Float[np.ndarray, " c"]
) -> Float[np.ndarray, " c"]:
    """Returns the counts, or the effective numbers (1 - β^n) / (1 - β)."""
    if not isinstance(weights, EffectiveNumber):
        return counts
    if weights.beta == 0:
        return np.ones_like(counts)
    # 1 - β^n, without cancellation where β is near 1.
    return np.asarray(-np.expm1(counts * np.log(weights.beta)) / (1 - weights.beta))
