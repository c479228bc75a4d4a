"""Metrics of counts per class: true positives, false positives, false negatives.

They need no matrix of classes, so that memory grows with the classes and not with their square.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer, Shaped

Counts = Shaped[np.ndarray, " c"]


def count_per_class(
    target: Integer[np.ndarray, " n"], predicted: Integer[np.ndarray, " n"], classes: int
) -> dict[str, Integer[np.ndarray, " c"]]:
    """Counts true positives, false positives and false negatives of each class.

    Example:
      >>> counts = count_per_class(np.array([0, 0, 1]), np.array([0, 1, 1]), classes=3)
      >>> {name: value.tolist() for name, value in counts.items()}
      {'tp': [1, 1, 0], 'fp': [0, 1, 0], 'fn': [1, 0, 0]}
    """
    # Predicted as k = tp_k + fp_k, and labeled as k = tp_k + fn_k.
    tp = np.bincount(target[target == predicted], minlength=classes)
    return {
        "tp": tp,
        "fp": np.bincount(predicted, minlength=classes) - tp,
        "fn": np.bincount(target, minlength=classes) - tp,
    }


def accuracy(tp: Counts, fn: Counts) -> float:
    """Computes the share of the targets that are predicted.

    Example:
      >>> accuracy(tp=np.array([3, 4]), fn=np.array([1, 0]))
      0.875
    """
    return mean_from_sum(float(tp.sum()), float(tp.sum() + fn.sum()))


def f1(tp: Counts, fp: Counts, fn: Counts) -> Float[np.ndarray, " c"]:
    """Computes 2 tp / (2 tp + fp + fn) per class, and 0 if all three are 0.

    Example:
      >>> f1(np.array([3, 0]), np.array([1, 0]), np.array([1, 0])).tolist()
      [0.75, 0.0]
    """
    # F1 = 2 tp / (2 tp + fp + fn), the harmonic mean of tp / (tp + fp) and tp / (tp + fn).
    # The denominator is a whole number, so the bound of 1 only avoids 0 / 0.
    twice_tp = 2 * np.asarray(tp, np.float64)
    return twice_tp / np.maximum(twice_tp + fp + fn, 1)


def macro_f1(tp: Counts, fp: Counts, fn: Counts) -> float:
    """Computes the mean F1 over the classes that occur among the targets or the predictions.

    This is scikit-learn's `f1_score(average="macro")`.

    Example:
      >>> macro_f1(tp=np.array([3, 3, 0]), fp=np.array([1, 1, 0]), fn=np.array([1, 1, 0]))
      0.75
    """
    occurs = tp + fp + fn > 0
    return float(f1(tp, fp, fn)[occurs].mean()) if occurs.any() else float("nan")


def mean_iou(tp: Counts, fp: Counts, fn: Counts) -> float:
    """Computes the mean of tp / (tp + fp + fn) over the classes that occur.

    Example:
      >>> mean_iou(tp=np.array([3, 3, 0]), fp=np.array([1, 1, 0]), fn=np.array([1, 1, 0]))
      0.6
    """
    # Intersection over union of the sets "predicted as k" and "labeled as k".
    union = np.asarray(tp + fp + fn, np.float64)
    occurs = union > 0
    return float((tp[occurs] / union[occurs]).mean()) if occurs.any() else float("nan")


def mean_from_sum(total: float, count: float) -> float:
    """Computes a mean from its sum; NaN for a count of zero.

    Example:
      >>> mean_from_sum(3.0, 2.0), mean_from_sum(0.0, 0.0)
      (1.5, nan)
    """
    return total / count if count else float("nan")


def make_class_report(
    target: Integer[np.ndarray, " n"], predicted: Integer[np.ndarray, " n"], names: Sequence[str]
) -> list[list[str]]:
    """Makes a table of each class's precision, recall, F1 and number of targets, header first.

    A precision without predictions, or a recall without targets, is 0, as in scikit-learn.

    Example:
      >>> for row in make_class_report(np.array([0, 0, 1]), np.array([0, 1, 1]), ["a", "b"]):
      ...     print(row)
      ['class', 'precision', 'recall', 'F1', 'examples']
      ['a', '1.000', '0.500', '0.667', '2']
      ['b', '0.500', '1.000', '0.667', '1']
    """
    counts = count_per_class(target, predicted, len(names))
    tp, fp, fn = counts["tp"], counts["fp"], counts["fn"]
    # Precision, recall and F1; counts are integers, so that a bound of 1 only avoids 0 / 0.
    columns = tp / np.maximum(tp + fp, 1), tp / np.maximum(tp + fn, 1), f1(tp, fp, fn)
    rows = [["class", "precision", "recall", "F1", "examples"]]
    for i, name in enumerate(names):
        rows.append([name, *(f"{column[i]:.3f}" for column in columns), f"{tp[i] + fn[i]:,}"])
    return rows
