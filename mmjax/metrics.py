"""Metrics: statistics of one example, which are summed over examples, and formulas of the sums.

The statistics are computed on the device, in any order and on any number of devices; the formulas
run once at the end, on the host, in float64. A metric of zero examples is NaN.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Num, Shaped

Statistics = dict[str, Array]


def confusion(logits: Float[Array, " c"], target: Integer[Array, ""]) -> Int[Array, "c c"]:
    """Computes one example's confusion matrix: 1 at [target, class of the highest logit].

    Example:
      >>> confusion(jnp.array([0.1, 2.0]), jnp.array(0)).tolist()
      [[0, 1], [0, 0]]
    """
    return at(target, logits.argmax(), logits.shape[0])


def at(
    target: Integer[Array, ""], predicted: Integer[Array, ""], classes: int
) -> Int[Array, "c c"]:
    """Computes a confusion matrix of zeros with 1 at [target, predicted].

    Example:
      >>> at(jnp.array(1), jnp.array(0), classes=2).tolist()
      [[0, 0], [1, 0]]
    """
    row = jax.nn.one_hot(target, classes, dtype=jnp.int32)
    column = jax.nn.one_hot(predicted, classes, dtype=jnp.int32)
    return row[:, None] * column[None]


def confusions(logits: Float[Array, "*n c"], target: Integer[Array, "*n"]) -> Int[Array, "c c"]:
    """Computes the confusion matrix of one example's tokens or pixels; targets of -1 do not count.

    Example:
      >>> logits = jnp.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
      >>> confusions(logits, jnp.array([1, 1, -1])).tolist()
      [[0, 0], [1, 1]]
    """
    classes = logits.shape[-1]
    # Cell target * c + prediction of the flat matrix; one more cell takes what does not count.
    cells = jnp.where(target >= 0, target * classes + logits.argmax(axis=-1), classes**2)
    counts = jnp.zeros(classes**2 + 1, jnp.int32).at[cells.reshape(-1)].add(1)
    return counts[:-1].reshape(classes, classes)


def hits(logits: Float[Array, " c"], target: Shaped[Array, " c"]) -> Statistics:
    """Computes true and false positives and false negatives per class, predicted at logit > 0.

    Example:
      >>> counts = hits(jnp.array([2.0, 1.0, -1.0]), jnp.array([1, 0, 1]))
      >>> {name: value.tolist() for name, value in counts.items()}
      {'tp': [1, 0, 0], 'fp': [0, 1, 0], 'fn': [0, 0, 1]}
    """
    predicted, true = logits > 0, target > 0
    counts = {"tp": predicted & true, "fp": predicted & ~true, "fn": ~predicted & true}
    return {name: value.astype(jnp.int32) for name, value in counts.items()}


def residuals(prediction: Float[Array, ""], target: Num[Array, ""]) -> Statistics:
    """Computes the terms of R² and of the mean errors for one example.

    The values should be standardized: sums of squares of numbers far from 0 cancel in float32.

    Example:
      >>> sums = residuals(jnp.array(1.0), jnp.array(3.0))
      >>> float(sums["absolute"]), float(sums["squared"])
      (2.0, 4.0)
    """
    error = prediction - target
    return {
        "count": jnp.ones((), jnp.int32),
        "absolute": jnp.abs(error),
        "squared": jnp.square(error),
        "target": target,
        "target_squared": jnp.square(target),
    }


def depth_errors(
    prediction: Float[Array, "h w"], target: Float[Array, "h w"], scale: float
) -> Statistics:
    """Computes sums over the pixels with a target over 0; absolute errors are divided by `scale`.

    Example:
      >>> sums = depth_errors(jnp.array([[3.0, 9.0]]), jnp.array([[2.0, 0.0]]), scale=0.5)
      >>> float(sums["absolute"]), float(sums["relative"]), int(sums["pixels"])
      (2.0, 0.5, 1)
    """
    measured = target > 0
    error = jnp.where(measured, prediction - target, 0)
    return {
        "pixels": measured.sum(),
        "absolute": jnp.abs(error / scale).sum(),
        "squared": jnp.square(error / scale).sum(),
        "relative": (jnp.abs(error) / jnp.where(measured, target, 1)).sum(),
    }


def accuracy(confusion: Shaped[np.ndarray, "c c"]) -> float:
    """Computes the share of examples on the diagonal of a confusion matrix.

    Example:
      >>> accuracy(np.array([[3, 1], [0, 4]]))
      0.875
    """
    return ratio(float(np.trace(confusion)), float(confusion.sum()))


def f1(
    tp: Shaped[np.ndarray, " c"], fp: Shaped[np.ndarray, " c"], fn: Shaped[np.ndarray, " c"]
) -> Float[np.ndarray, " c"]:
    """Computes 2 tp / (2 tp + fp + fn) per class, and 0 if all three are 0.

    Example:
      >>> f1(np.array([3, 0]), np.array([1, 0]), np.array([1, 0])).tolist()
      [0.75, 0.0]
    """
    twice_tp = 2 * np.asarray(tp, np.float64)
    return twice_tp / np.maximum(twice_tp + fp + fn, 1)


def macro_f1(confusion: Shaped[np.ndarray, "c c"]) -> float:
    """Computes the mean F1 over the classes that occur among the targets or the predictions.

    This is scikit-learn's `f1_score(average="macro")`.

    Example:
      >>> macro_f1(np.array([[3, 1, 0], [1, 3, 0], [0, 0, 0]]))
      0.75
    """
    tp = np.diag(confusion)
    fp, fn = confusion.sum(axis=0) - tp, confusion.sum(axis=1) - tp
    occurs = tp + fp + fn > 0
    return float(f1(tp, fp, fn)[occurs].mean()) if occurs.any() else float("nan")


def mean_iou(confusion: Shaped[np.ndarray, "c c"]) -> float:
    """Computes the mean of tp / (tp + fp + fn) over the classes that occur.

    Example:
      >>> mean_iou(np.array([[3, 1, 0], [1, 3, 0], [0, 0, 0]]))
      0.6
    """
    tp = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - tp
    occurs = union > 0
    return float((tp[occurs] / union[occurs]).mean()) if occurs.any() else float("nan")


def rank_error(confusion: Shaped[np.ndarray, "c c"]) -> float:
    """Computes the mean distance, in classes, between target and prediction.

    Example:
      >>> rank_error(np.array([[1, 0, 1], [0, 2, 0], [0, 0, 0]]))
      0.5
    """
    return ratio(float((_rank_distance(confusion) * confusion).sum()), float(confusion.sum()))


def quadratic_kappa(confusion: Shaped[np.ndarray, "c c"]) -> float:
    """Computes 1 - Σ d² observed / Σ d² expected by chance, where d is the distance in classes.

    NaN if chance alone makes no error. Source: Cohen, Psychological Bulletin 1968.

    Example:
      >>> quadratic_kappa(np.array([[2, 0], [0, 2]]))
      1.0
    """
    counts = confusion.astype(np.float64)
    chance = np.outer(counts.sum(axis=1), counts.sum(axis=0))
    squared = _rank_distance(confusion) ** 2
    expected = float((squared * chance).sum())
    return (
        1 - float((squared * counts).sum() * counts.sum()) / expected if expected else float("nan")
    )


def _rank_distance(confusion: Shaped[np.ndarray, "c c"]) -> Float[np.ndarray, "c c"]:
    """Returns the matrix of |i - j|."""
    ranks = np.arange(len(confusion), dtype=np.float64)
    return np.abs(ranks[:, None] - ranks[None])


def r2(squared: float, target: float, target_squared: float, count: float) -> float:
    """Computes the coefficient of determination, 1 - Σ(p - y)² / Σ(y - mean y)².

    NaN for constant targets.

    Example:
      >>> r2(squared=1.0, target=6.0, target_squared=14.0, count=3.0)  # y = 1, 2, 3
      0.5
    """
    if not count:
        return float("nan")
    # Σ(y - mean y)² = Σy² - (Σy)² / n; standardized targets keep it from canceling.
    spread = target_squared - target**2 / count
    return 1 - squared / spread if spread > 0 else float("nan")


def ratio(total: float, count: float) -> float:
    """Computes a mean from its sum; NaN for a count of zero.

    Example:
      >>> ratio(3.0, 2.0), ratio(0.0, 0.0)
      (1.5, nan)
    """
    return total / count if count else float("nan")
