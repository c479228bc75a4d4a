"""Thresholds of several labels per example, tuned on the validation split."""

import numpy as np
from jaxtyping import Bool, Float, Shaped

from mmjax.metrics.class_counts import f1
from mmjax.metrics.direction import declare_metric


def tune_thresholds(
    prediction: Float[np.ndarray, "n c"], target: Shaped[np.ndarray, "n c"]
) -> Float[np.ndarray, " c"]:
    """Returns the logit threshold of each class that gives the highest F1.

    Of equally good thresholds, it is the highest; 0 for a class without a positive example.

    Example:
      >>> logits = np.array([[-3.0], [-2.0], [-1.0]])
      >>> tune_thresholds(logits, np.array([[0], [1], [1]])).tolist()
      [-2.0]
    """
    thresholds = np.zeros(target.shape[1])
    for i, (column, labels) in enumerate(zip(prediction.T, target.T, strict=True)):
        score, positive = column[labels >= 0], labels[labels >= 0] > 0
        if positive.any():
            thresholds[i] = _find_best_threshold(score, positive)
    return thresholds


def _find_best_threshold(
    score: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]
) -> np.floating:
    """Returns the score at and above which predicting the class gives the highest F1."""
    # Descending: the i first examples are those that a threshold at the i-th score predicts. So
    # one cumulative sum gives tp, fp and fn of all thresholds.
    order = np.argsort(-score, kind="stable")
    score, positive = score[order], positive[order]
    ends = np.flatnonzero(np.append(score[1:] != score[:-1], True))
    tp = np.cumsum(positive)[ends]
    fp, fn = ends + 1 - tp, positive.sum() - tp
    # Scores descend, and argmax takes the first of equal values: the highest threshold.
    best: np.floating = score[ends[f1(tp, fp, fn).argmax()]]
    return best


@declare_metric("max", "multilabel", tune=tune_thresholds)
def tuned_macro_f1(
    prediction: Float[np.ndarray, "n c"],
    target: Shaped[np.ndarray, "n c"],
    thresholds: Float[np.ndarray, " c"],
) -> float:
    """Computes the mean F1 over classes at the thresholds that `tune_thresholds` returned.

    An evaluation tunes them on the validation split, whatever split it evaluates.

    Example:
      >>> tuned_macro_f1(np.array([[-2.0], [-3.0]]), np.array([[1], [0]]), np.array([-2.5]))
      1.0
    """
    predicted, true, false = prediction >= thresholds[None], target > 0, target == 0
    counts = (predicted & true, predicted & false, ~predicted & true)
    return float(f1(*(count.sum(axis=0) for count in counts)).mean())
