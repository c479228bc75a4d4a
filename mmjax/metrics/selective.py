"""Selective prediction: the risk of a classifier that answers only where it is confident."""

import numpy as np
from jaxtyping import Bool, Float

from mmjax.metrics.calibration import Classes, Logits
from mmjax.metrics.direction import declare_metric
from mmjax.metrics.flatten import CLASS_KINDS, compute_probabilities, flatten_labeled


def compute_risk_coverage(
    confidence: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"]
) -> dict[str, Float[np.ndarray, " n"]]:
    """Computes the error rate among the k most confident examples, for every k from 1 to n.

    Examples of equal confidence count by their mean error, so that their order has no effect.

    Returns:
      {"coverage": k / n, "risk": error rate}.

    Example:
      >>> curve = compute_risk_coverage(np.array([0.9, 0.5, 0.7]), np.array([True, False, True]))
      >>> curve["risk"].round(3).tolist()
      [0.0, 0.0, 0.333]
    """
    _, group, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    mean_error = np.bincount(group, ~correct, minlength=len(size)) / size
    count = np.arange(1, len(correct) + 1)
    risk = np.cumsum(np.repeat(mean_error, size)) / count
    return {"coverage": count / max(len(correct), 1), "risk": risk}


@declare_metric("min", *CLASS_KINDS)
def risk_coverage_area(prediction: Logits, target: Classes) -> float:
    """Computes the area under the risk-coverage curve (AURC): the mean risk over all coverages.

    The confidence is the highest probability. Source: Geifman et al., ICLR 2019
    (arXiv:1805.08206).

    Example:
      >>> logits = np.array([[2.0, 0.0], [0.0, 1.0]])  # the first one is more confident
      >>> risk_coverage_area(logits, np.array([0, 0])), risk_coverage_area(logits, np.array([1, 1]))
      (0.25, 0.75)
    """
    logits, classes = flatten_labeled(prediction, target)
    if not len(classes):
        return float("nan")
    confidence = compute_probabilities(logits).max(axis=-1)
    curve = compute_risk_coverage(confidence, logits.argmax(axis=-1) == classes)
    return float(curve["risk"].mean())


@declare_metric("min", *CLASS_KINDS)
def excess_risk_coverage_area(prediction: Logits, target: Classes) -> float:
    """Computes AURC minus that of the best order, in which all errors come last (E-AURC).

    It measures the order of the confidences alone: 0 is best, whatever the accuracy. Source:
    Geifman et al., ICLR 2019, whose formula for the best order is the limit of many examples.

    Example:
      >>> logits = np.array([[2.0, 0.0], [0.0, 1.0]])
      >>> excess_risk_coverage_area(logits, np.array([1, 1]))
      0.5
    """
    logits, classes = flatten_labeled(prediction, target)
    if not len(classes):
        return float("nan")
    correct = np.sort(logits.argmax(axis=-1) == classes)[::-1]
    best = np.cumsum(~correct) / np.arange(1, len(correct) + 1)
    return risk_coverage_area(prediction, target) - float(best.mean())
