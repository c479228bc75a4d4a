"""Metrics: statistics of one example that are added over examples, and what their sums say.

The statistics are computed on the device, in any order and on any number of devices; the formulas
run once at the end, on the host, in float64. A metric of no example at all is NaN.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Num, Shaped

Statistics = dict[str, Array]


def confusion(logits: Float[Array, " c"], target: Integer[Array, ""]) -> Int[Array, "c c"]:
    """The example's confusion matrix: 1 at [target, class of the highest logit]."""
    classes = logits.shape[0]
    true = jax.nn.one_hot(target, classes, dtype=jnp.int32)
    predicted = jax.nn.one_hot(logits.argmax(), classes, dtype=jnp.int32)
    return true[:, None] * predicted[None]


def hits(logits: Float[Array, " c"], target: Shaped[Array, " c"]) -> Statistics:
    """True positives, false positives and false negatives of each class, predicted at logit > 0."""
    predicted, true = logits > 0, target > 0
    counts = {"tp": predicted & true, "fp": predicted & ~true, "fn": ~predicted & true}
    return {name: value.astype(jnp.int32) for name, value in counts.items()}


def residuals(prediction: Float[Array, ""], target: Num[Array, ""]) -> Statistics:
    """What R² and the mean errors need; of standardised values, lest float32 sums cancel."""
    error = prediction - target
    return {
        "count": jnp.ones((), jnp.int32),
        "absolute": jnp.abs(error),
        "squared": jnp.square(error),
        "target": target,
        "target_squared": jnp.square(target),
    }


def accuracy(confusion: Shaped[np.ndarray, "c c"]) -> float:
    """Share of examples on the diagonal."""
    return ratio(float(np.trace(confusion)), float(confusion.sum()))


def f1(
    tp: Shaped[np.ndarray, " c"], fp: Shaped[np.ndarray, " c"], fn: Shaped[np.ndarray, " c"]
) -> Float[np.ndarray, " c"]:
    """2 tp / (2 tp + fp + fn), and 0 where all three are 0."""
    tp, fp, fn = (np.asarray(x, np.float64) for x in (tp, fp, fn))
    return 2 * tp / np.maximum(2 * tp + fp + fn, 1)


def macro_f1(confusion: Shaped[np.ndarray, "c c"]) -> float:
    """Mean F1 over the classes that occur among the targets or the predictions.

    So does scikit-learn's `f1_score(average="macro")`.
    """
    tp = np.diag(confusion)
    fp, fn = confusion.sum(axis=0) - tp, confusion.sum(axis=1) - tp
    occurs = tp + fp + fn > 0
    return float(f1(tp, fp, fn)[occurs].mean()) if occurs.any() else float("nan")


def r2(squared: float, target: float, target_squared: float, count: float) -> float:
    """Coefficient of determination, 1 - Σ(p - y)² / Σ(y - mean y)²; NaN for constant targets."""
    if not count:
        return float("nan")
    spread = target_squared - target**2 / count
    return 1 - squared / spread if spread > 0 else float("nan")


def ratio(total: float, count: float) -> float:
    """A mean from its sum; NaN where there is nothing."""
    return total / count if count else float("nan")
