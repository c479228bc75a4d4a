"""Regression metrics, in float64 from the values themselves, so that no sum of squares cancels.

If targets have several numbers per example, a metric is the mean of its values for each number.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Shaped

from mmjax.metrics.direction import declare_metric

Values = Shaped[np.ndarray, "n *d"]


def _split_columns(
    prediction: Values, target: Values
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]]:
    """Returns float64 matrices with one column per component of an example."""
    if prediction.shape != target.shape:
        raise ValueError(f"predictions {prediction.shape} and targets {target.shape} differ")
    shape = len(target), math.prod(target.shape[1:])
    return prediction.reshape(shape).astype(np.float64), target.reshape(shape).astype(np.float64)


def _average_columns(
    function: Callable[[np.ndarray, np.ndarray], float], prediction: Values, target: Values
) -> float:
    """Returns the mean of a function of one column of predictions and targets."""
    p, y = _split_columns(prediction, target)
    if not len(y):
        return float("nan")
    return float(np.mean([function(p[:, i], y[:, i]) for i in range(y.shape[1])]))


@declare_metric("min", "regression")
def mean_absolute_error(prediction: Values, target: Values) -> float:
    """Computes the mean of |prediction - target|.

    Example:
      >>> mean_absolute_error(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
      1.5
    """
    return _average_columns(lambda p, y: np.abs(p - y).mean(), prediction, target)


@declare_metric("min", "regression")
def root_mean_squared_error(prediction: Values, target: Values) -> float:
    """Computes the square root of the mean of (prediction - target)².

    Example:
      >>> root_mean_squared_error(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
      1.0
    """
    return _average_columns(lambda p, y: np.sqrt(np.square(p - y).mean()), prediction, target)


@declare_metric("max", "regression")
def r2(prediction: Values, target: Values) -> float:
    """Computes the coefficient of determination, 1 - Σ(p - y)² / Σ(y - mean y)².

    NaN for constant targets.

    Example:
      >>> r2(np.array([1.0, 2.0, 2.0]), np.array([1.0, 2.0, 3.0]))
      0.5
    """

    def compute(p: np.ndarray, y: np.ndarray) -> float:
        # 1 - residual sum of squares / total sum of squares; undefined for a constant target.
        spread = np.square(y - y.mean()).sum()
        return 1 - np.square(p - y).sum() / spread if np.ptp(y) > 0 else float("nan")

    return _average_columns(compute, prediction, target)


@declare_metric("max", "regression")
def pearson(prediction: Values, target: Values) -> float:
    """Computes Pearson's correlation; NaN if predictions or targets are constant.

    Example:
      >>> print(f"{pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 7.0])):.3f}")
      0.993
    """

    def compute(p: np.ndarray, y: np.ndarray) -> float:
        if not (np.ptp(p) > 0 and np.ptp(y) > 0):
            return float("nan")
        a, b = p - p.mean(), y - y.mean()
        # Each is scaled first: products of very large or small numbers would leave the range.
        # Rounding can exceed 1 by an ulp, hence the clip.
        return float(np.dot(a / np.linalg.norm(a), b / np.linalg.norm(b)).clip(-1, 1))

    return _average_columns(compute, prediction, target)


@declare_metric("max", "regression")
def spearman(prediction: Values, target: Values) -> float:
    """Computes Spearman's rank correlation, ties with their mean rank; NaN for constants.

    Example:
      >>> print(f"{spearman(np.array([1.0, 2.0, 9.0]), np.array([2.0, 4.0, 5.0])):.3f}")
      1.000
    """
    from scipy.stats import rankdata  # a slow import, which few experiments need

    # Spearman's correlation is Pearson's of the ranks; ties share their mean rank.
    return _average_columns(lambda p, y: pearson(rankdata(p), rankdata(y)), prediction, target)


@declare_metric("min", "regression")
def mean_absolute_percentage_error(prediction: Values, target: Values) -> float:
    """Computes the mean of |prediction - target| / |target|, as a fraction and not in percent.

    As in scikit-learn, |target| is at least 2⁻⁵², so that a target of 0 gives a huge value.

    Example:
      >>> mean_absolute_percentage_error(np.array([1.5, 2.0]), np.array([1.0, 4.0]))
      0.5
    """
    eps = np.finfo(np.float64).eps

    def compute(p: np.ndarray, y: np.ndarray) -> float:
        # A target of 0 has no relative error; the bound of scikit-learn makes it huge but finite.
        return float((np.abs(p - y) / np.maximum(np.abs(y), eps)).mean())

    return _average_columns(compute, prediction, target)


@declare_metric("min", "regression")
def mean_pinball_loss(prediction: Values, target: Values, quantile: float = 0.5) -> float:
    """Computes the mean of q e for an error e = target - prediction ≥ 0, and of (q - 1) e below.

    Its optimum is the target's quantile q (Koenker and Bassett 1978).

    Example:
      >>> mean_pinball_loss(np.array([1.0, 2.0]), np.array([2.0, 1.0]), quantile=0.9)
      0.5
    """

    def compute(p: np.ndarray, y: np.ndarray) -> float:
        # q (y - p) if the prediction is too low, (1 - q) (p - y) if it is too high.
        return float(np.maximum(quantile * (y - p), (quantile - 1) * (y - p)).mean())

    return _average_columns(compute, prediction, target)
