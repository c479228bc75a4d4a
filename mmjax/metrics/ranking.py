"""Ranking metrics: areas under curves, and top-k accuracy.

An area is undefined for a class that has all examples or none; means over classes leave it out.
"""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Shaped

from mmjax.metrics.direction import declare_metric
from mmjax.metrics.flatten import CLASS_KINDS, compute_probabilities, flatten_labeled

Logits = Float[np.ndarray, "..."]
Classes = Shaped[np.ndarray, "..."]


@declare_metric("max", "multilabel", *CLASS_KINDS)
def auroc(prediction: Logits, target: Classes) -> float:
    """Computes the area under the ROC curve.

    For two classes it is that of the second; for more, the mean over one class against the rest, by
    softmax probabilities; for several labels, the mean over labels, without unknown entries.

    Example:
      >>> auroc(np.array([[0.0, -1.0], [0.0, 2.0], [0.0, 1.0], [0.0, 3.0]]), np.array([0, 0, 1, 1]))
      0.75
    """
    return _average_over_classes(_compute_auroc, prediction, target)


@declare_metric("max", "multilabel", *CLASS_KINDS)
def average_precision(prediction: Logits, target: Classes) -> float:
    """Computes Σ (R_i - R_i-1) P_i over the thresholds, for the classes that `auroc` takes.

    P_i and R_i are precision and recall at the i-th highest score.

    Example:
      >>> logits = np.array([[0.0, -1.0], [0.0, 2.0], [0.0, 1.0], [0.0, 3.0]])
      >>> print(f"{average_precision(logits, np.array([0, 0, 1, 1])):.4f}")  # 1/2 + 1/2 · 2/3
      0.8333
    """
    return _average_over_classes(_compute_average_precision, prediction, target)


@declare_metric("max", *CLASS_KINDS)
def top_k_accuracy(prediction: Logits, target: Classes, k: int = 5) -> float:
    """Computes how often the true class is among the k highest logits.

    Of equal logits the lower class comes first, as in `argmax`, so that k = 1 is the accuracy.

    Example:
      >>> top_k_accuracy(np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), np.array([1, 2]), k=2)
      0.5
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    logits, classes = flatten_labeled(prediction, target)
    if not len(classes):
        return float("nan")
    score = np.take_along_axis(logits, classes[:, None], axis=1)
    before = np.arange(logits.shape[1])[None] < classes[:, None]
    # Of equal scores, the class with the smaller index is first, as in a stable sort.
    rank = (logits > score).sum(axis=1) + ((logits == score) & before).sum(axis=1)
    return float((rank < k).mean())


def _average_over_classes(
    compute: Callable[[np.ndarray, np.ndarray], float], prediction: Logits, target: Classes
) -> float:
    """Returns the mean over the classes that have an example inside and one outside."""
    values = []
    for score, positive in _iterate_classes(prediction, target):
        # Without both kinds of examples there are no pairs to rank.
        if positive.any() and not positive.all():
            values.append(compute(score, positive))
    return float(np.mean(values)) if values else float("nan")


def _iterate_classes(
    prediction: Logits, target: Classes
) -> Iterator[tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]]:
    """Yields the scores of each class, and which examples are inside."""
    if prediction.shape == target.shape and target.ndim == 2:
        for score, label in zip(prediction.T, target.T, strict=True):
            known = label >= 0
            yield score[known].astype(np.float64), label[known] > 0
        return
    logits, classes = flatten_labeled(prediction, target)
    if logits.shape[1] == 2:
        # The difference orders examples as the probability does, without rounding to 0 or 1.
        yield logits[:, 1] - logits[:, 0], classes == 1
        return
    for i, score in enumerate(compute_probabilities(logits).T):
        yield score, classes == i


def _compute_auroc(score: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """Computes P(score inside > score outside) + ½ P(equal), by ranks (Mann and Whitney 1947)."""
    from scipy.stats import rankdata  # a slow import, which few experiments need

    inside = int(positive.sum())
    ranks = float(rankdata(score)[positive].sum())
    # The Mann-Whitney U statistic over the number of pairs: the share of (positive, negative) pairs
    # in the right order. `rankdata` gives ties their mean rank, so that an equal pair counts 1/2.
    return (ranks - inside * (inside + 1) / 2) / (inside * (len(score) - inside))


def _compute_average_precision(
    score: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]
) -> float:
    """Computes the average precision; equal scores share one threshold."""
    order = np.argsort(-score, kind="stable")
    score, positive = score[order], positive[order]
    # A threshold can only lie between different scores: at the last example of each group of ties.
    ends = np.flatnonzero(np.append(score[1:] != score[:-1], True))
    tp = np.cumsum(positive)[ends]
    # sum_n (R_n - R_{n-1}) P_n, where the recall is R_n = tp_n / positives and the precision is
    # P_n = tp_n / predicted_n.
    gains = np.diff(tp, prepend=0) / tp[-1]
    return float((gains * tp / (ends + 1)).sum())
