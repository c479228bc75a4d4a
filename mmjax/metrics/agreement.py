"""Metrics of predicted classes: agreement beyond chance, recall per class, overlap, ranks."""

import numpy as np
from jaxtyping import Float, Integer, Shaped

from mmjax.metrics.class_counts import count_per_class, macro_f1, mean_from_sum
from mmjax.metrics.direction import declare_metric
from mmjax.metrics.flatten import CLASS_KINDS, choose_classes

Logits = Float[np.ndarray, "..."]
Classes = Shaped[np.ndarray, "..."]


@declare_metric("max", *CLASS_KINDS)
def balanced_accuracy(prediction: Logits, target: Classes) -> float:
    """Computes the mean recall over the classes that occur among the targets.

    Example:
      >>> logits = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> balanced_accuracy(logits, np.array([0, 0, 1, 1]))
      0.75
    """
    counts = count_per_class(*choose_classes(prediction, target))
    # Classes without an example have no recall and are left out of the mean.
    true = counts["tp"] + counts["fn"]
    occurs = true > 0
    return float((counts["tp"][occurs] / true[occurs]).mean()) if occurs.any() else float("nan")


@declare_metric("max", *CLASS_KINDS)
def matthews_correlation(prediction: Logits, target: Classes) -> float:
    """Computes the correlation of predicted and true classes; 0 if either is constant.

    Source: Gorodkin, Computational Biology and Chemistry 2004, for several classes.

    Example:
      >>> logits = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
      >>> matthews_correlation(logits, np.array([0, 1, 0, 1]))
      1.0
    """
    agreement, true, predicted = _count_agreement(prediction, target)
    n = true.sum()
    # With n examples, c correct ones, and t_k and p_k examples of class k by label and by
    # prediction: MCC = (c n - sum_k t_k p_k) / sqrt((n^2 - sum_k t_k^2) (n^2 - sum_k p_k^2)),
    # Gorodkin's R_K.
    covariance = agreement * n - true @ predicted
    spread = (n**2 - true @ true) * (n**2 - predicted @ predicted)
    if not n:
        return float("nan")
    return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0


@declare_metric("max", *CLASS_KINDS)
def cohen_kappa(prediction: Logits, target: Classes) -> float:
    """Computes (observed - expected) / (1 - expected) agreement; NaN if chance alone agrees.

    Source: Cohen, Educational and Psychological Measurement 1960.

    Example:
      >>> logits = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
      >>> cohen_kappa(logits, np.array([0, 1, 0, 1]))
      0.5
    """
    agreement, true, predicted = _count_agreement(prediction, target)
    n = true.sum()
    # kappa = (p_o - p_e) / (1 - p_e) with the agreement p_o = c / n and that expected by chance,
    # p_e = sum_k t_k p_k / n^2.
    expected = mean_from_sum(float(true @ predicted), float(n**2))
    # A NaN, of no examples, is not below 1.
    return float((agreement / n - expected) / (1 - expected)) if expected < 1 else float("nan")


def _count_agreement(
    prediction: Logits, target: Classes
) -> tuple[float, Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Returns how many predictions are right, and how often each class is true and predicted."""
    counts = count_per_class(*choose_classes(prediction, target))
    # float64: squares of counts of pixels would overflow integers.
    tp, fp, fn = (counts[name].astype(np.float64) for name in ("tp", "fp", "fn"))
    return float(tp.sum()), tp + fn, tp + fp


@declare_metric("max", *CLASS_KINDS)
def dice(prediction: Logits, target: Classes) -> float:
    """Computes the mean of 2 |A ∩ B| / (|A| + |B|) over the classes that occur.

    A and B are the predicted and the true positions of a class, over all examples together. This
    is the macro F1 of the positions.

    Example:
      >>> logits = np.array([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
      >>> dice(logits, np.array([[0, 0, -1]]))
      1.0
    """
    return macro_f1(**count_per_class(*choose_classes(prediction, target)))


def rank_error(target: Integer[np.ndarray, " n"], predicted: Integer[np.ndarray, " n"]) -> float:
    """Computes the mean distance, in classes, between target and predicted class.

    Example:
      >>> rank_error(np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1]))
      0.5
    """
    return float(np.abs(target - predicted).mean()) if len(target) else float("nan")


def quadratic_kappa(
    target: Integer[np.ndarray, " n"], predicted: Integer[np.ndarray, " n"]
) -> float:
    """Computes 1 - Σ d² observed / Σ d² expected by chance, where d is the distance in classes.

    NaN if chance alone makes no error. Source: Cohen, Psychological Bulletin 1968.

    Example:
      >>> quadratic_kappa(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]))
      1.0
    """
    if not len(target):
        return float("nan")
    # E (t - p)² of independent t and p is var t + var p + (mean t - mean p)².
    expected = target.var() + predicted.var() + (target.mean() - predicted.mean()) ** 2
    # 1 - E (t - p)^2 / E (t - p')^2, with p' drawn independently of t.
    observed = np.square((target - predicted).astype(np.float64)).mean()
    return float(1 - observed / expected) if expected > 0 else float("nan")
