"""Metrics of predicted probabilities, in float64 from the logits."""

import numpy as np
from jaxtyping import Bool, Float, Shaped

from mmjax.metrics.direction import declare_metric
from mmjax.metrics.flatten import CLASS_KINDS, compute_probabilities, flatten_labeled

Logits = Float[np.ndarray, "..."]
Classes = Shaped[np.ndarray, "..."]


@declare_metric("min", "multilabel", *CLASS_KINDS)
def negative_log_likelihood(prediction: Logits, target: Classes) -> float:
    """Computes the mean of -log P(target), in nats; of several labels, over all known entries.

    Example:
      >>> print(f"{negative_log_likelihood(np.zeros((2, 4)), np.array([0, 3])):.3f}")  # ln 4
      1.386
    """
    from scipy import special  # a slow import, which training need not wait for

    if prediction.shape == target.shape:
        logits, labels = _select_known(prediction, target)
        # -log sigmoid(z) for a label of 1 and -log(1 - sigmoid(z)) = -log sigmoid(-z) for one of 0.
        return _mean(-special.log_expit(np.where(labels, logits, -logits)))
    logits, classes = flatten_labeled(prediction, target)
    log_p = special.log_softmax(logits, axis=-1)
    return _mean(-np.take_along_axis(log_p, classes[:, None], axis=-1))


@declare_metric("min", "multilabel", *CLASS_KINDS)
def brier_score(prediction: Logits, target: Classes) -> float:
    """Computes the mean of Σ over classes of (probability - [target is the class])².

    For two classes, and for each entry of several labels, it is (probability - target)², half of
    that sum, as in scikit-learn. Source: Brier, Monthly Weather Review 1950.

    Example:
      >>> brier_score(np.zeros((2, 2)), np.array([0, 1]))
      0.25
    """
    if prediction.shape == target.shape:
        from scipy import special

        logits, labels = _select_known(prediction, target)
        return _mean(np.square(special.expit(logits) - labels))
    logits, classes = flatten_labeled(prediction, target)
    # sum_c (p_c - 1[c = y])^2, from 0 to 2.
    error = compute_probabilities(logits)
    error[np.arange(len(classes)), classes] -= 1
    # For two classes both terms are equal; half of their sum is the binary Brier score.
    total = np.square(error).sum(axis=-1)
    return _mean(total / 2 if logits.shape[-1] == 2 else total)


@declare_metric("min", *CLASS_KINDS)
def calibration_error(prediction: Logits, target: Classes, bins: int = 15) -> float:
    """Computes the expected calibration error: the mean of |accuracy - confidence| over bins.

    The confidence is the highest probability; bins of equal width count by their examples. Source:
    Guo et al., ICML 2017 (arXiv:1706.04599), equation 3.

    Example:
      >>> calibration_error(np.zeros((4, 2)), np.array([0, 0, 0, 1]))  # sure by 0.5, right by 0.75
      0.25
    """
    logits, classes = flatten_labeled(prediction, target)
    if not len(classes):
        return float("nan")
    # The confidence is the probability of the predicted class.
    confidence = compute_probabilities(logits).max(axis=-1)
    return _average_gaps(confidence, logits.argmax(axis=-1) == classes, bins)


@declare_metric("min", *CLASS_KINDS)
def adaptive_calibration_error(prediction: Logits, target: Classes, bins: int = 15) -> float:
    """Computes the calibration error over bins of equally many examples, sorted by confidence.

    Bins of equal width are almost empty where few confidences lie. Sources: Nguyen and O'Connor,
    EMNLP 2015 (arXiv:1508.05154); Nixon et al., CVPR workshops 2019 (arXiv:1904.01685).

    Example:
      >>> adaptive_calibration_error(np.zeros((4, 2)), np.array([0, 0, 1, 1]), bins=2)
      0.5
    """
    logits, classes = flatten_labeled(prediction, target)
    if not len(classes):
        return float("nan")
    confidence = compute_probabilities(logits).max(axis=-1)
    correct = logits.argmax(axis=-1) == classes
    order = np.argsort(confidence, kind="stable")
    total = 0.0
    for part in np.array_split(order, min(bins, len(order))):
        total += abs(float((correct[part] - confidence[part]).sum()))
    return total / len(classes)


@declare_metric("min", *CLASS_KINDS)
def classwise_calibration_error(prediction: Logits, target: Classes, bins: int = 15) -> float:
    """Computes the mean over the classes of the calibration error of each class's probability.

    The probability of a class is compared with the share of examples that are of the class, in bins
    of equal width. Sources: Kull et al., NeurIPS 2019 (arXiv:1910.12656); Nixon et al. (static
    calibration error).

    Example:
      >>> classwise_calibration_error(np.zeros((4, 2)), np.array([0, 0, 0, 1]))
      0.25
    """
    logits, classes = flatten_labeled(prediction, target)
    if not len(classes):
        return float("nan")
    probabilities = compute_probabilities(logits)
    errors = [_average_gaps(p, classes == c, bins) for c, p in enumerate(probabilities.T)]
    return float(np.mean(errors))


def _average_gaps(
    confidence: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"], bins: int
) -> float:
    """Averages |accuracy - confidence| over bins of equal width, by their examples."""
    # ECE = sum_b n_b / n |accuracy_b - confidence_b| over the bins b.
    curve = compute_calibration_curve(confidence, correct, bins)
    gap = np.abs(curve["accuracy"] - curve["confidence"])
    return float((gap * curve["examples"]).sum() / len(correct))


def compute_calibration_curve(
    confidence: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"], bins: int = 15
) -> dict[str, Float[np.ndarray, " k"]]:
    """Computes mean confidence, accuracy and number of examples of every bin that has examples.

    Bin i of B holds confidences in (i / B, (i + 1) / B].

    Example:
      >>> curve = compute_calibration_curve(np.array([0.6, 0.9]), np.array([False, True]), bins=2)
      >>> curve["confidence"].tolist(), curve["accuracy"].tolist(), curve["examples"].tolist()
      ([0.75], [0.5], [2.0])
    """
    # A confidence of 0, which no bin contains, is counted in the first one.
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    examples = np.bincount(index, minlength=bins).astype(np.float64)
    occurs = examples > 0

    def average(values: np.ndarray) -> np.ndarray:
        total = np.bincount(index, values.astype(np.float64), minlength=bins)
        return total[occurs] / examples[occurs]

    mean, accuracy = average(confidence), average(correct)
    return {"confidence": mean, "accuracy": accuracy, "examples": examples[occurs]}


def _select_known(
    prediction: Logits, target: Classes
) -> tuple[Float[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
    """Returns the logits and labels of the known entries of several labels per example."""
    known = target >= 0
    return prediction[known].astype(np.float64), target[known] > 0


def _mean(values: Float[np.ndarray, "..."]) -> float:
    return float(values.mean()) if values.size else float("nan")
