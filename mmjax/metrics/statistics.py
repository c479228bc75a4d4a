"""Statistics of one example, computed on the device: counts, and what is kept per example."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Shaped


class PerExample(NamedTuple):
    """A statistic that an evaluation keeps for every example instead of summing it.

    Attributes:
      values: of one example, or [b ...] after `vmap`.
      labeled: whether the example counts; Bool[b] after `vmap`.

    Example:
      >>> PerExample(np.array([3, 4, 5]), np.array([True, False, True])).select().tolist()
      [3, 5]
    """

    values: Shaped[Array | np.ndarray, "..."]
    labeled: Any = True

    def select(self) -> Shaped[np.ndarray, "n ..."]:
        """Returns the values of the labeled examples as a NumPy array.

        Raises:
          ValueError: if the values or the marks were summed over the examples.
        """
        values, labeled = np.asarray(self.values), np.asarray(self.labeled)
        if labeled.dtype != bool:
            raise ValueError(
                "The statistics were summed over the examples; this one is kept for every example, "
                "since sums of large values lose their differences. Pass the statistics of all "
                "examples, with a leading axis."
            )
        return values[np.broadcast_to(labeled, values.shape[:1])]


Statistics = dict[str, Array | PerExample]


def is_per_example(value: Any) -> bool:
    """Checks whether a statistic is kept per example; for `jax.tree.map(is_leaf=...)`."""
    return isinstance(value, PerExample)


def record_choice(logits: Float[Array, " c"], target: Integer[Array, ""]) -> Statistics:
    """Keeps the target, the class of the highest logit, and its probability.

    Example:
      >>> kept = record_choice(jnp.array([0.0, 0.0]), jnp.array(1))
      >>> int(kept["target"].values), int(kept["predicted"].values)
      (1, 0)
      >>> float(kept["confidence"].values)
      0.5
    """
    # The largest probability, max softmax(z) = exp(max z - logsumexp z).
    confidence = jnp.exp(logits.max() - jax.nn.logsumexp(logits))
    return {
        "target": PerExample(target),
        "predicted": PerExample(logits.argmax().astype(jnp.int32)),
        "confidence": PerExample(confidence),
    }


def count_confusions(
    logits: Float[Array, "*n c"], target: Integer[Array, "*n"]
) -> dict[str, Int[Array, " c"]]:
    """Counts true and false positives and false negatives per class over tokens or pixels.

    The prediction is the class of the highest logit; targets of -1 do not count.

    Example:
      >>> logits = jnp.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
      >>> counts = count_confusions(logits, jnp.array([1, 1, -1]))
      >>> {name: value.tolist() for name, value in counts.items()}
      {'tp': [0, 1], 'fp': [1, 0], 'fn': [0, 1]}
    """
    classes = logits.shape[-1]
    predicted, labeled = logits.argmax(axis=-1), target >= 0

    def count(index: Integer[Array, "*n"], counts: Bool[Array, "*n"]) -> Int[Array, " c"]:
        # An index beyond the end is dropped.
        index = jnp.where(counts, index, classes).reshape(-1)
        return jnp.zeros(classes, jnp.int32).at[index].add(1, mode="drop")

    # Predicted as k = tp_k + fp_k, labeled as k = tp_k + fn_k.
    tp = count(target, labeled & (predicted == target))
    return {"tp": tp, "fp": count(predicted, labeled) - tp, "fn": count(target, labeled) - tp}


def count_hits(
    logits: Float[Array, " c"], target: Shaped[Array, " c"]
) -> dict[str, Int[Array, " c"]]:
    """Counts true and false positives and false negatives per class, predicted at logit > 0.

    Targets of -1 are unknown and do not count.

    Example:
      >>> counts = count_hits(jnp.array([2.0, 1.0, -1.0]), jnp.array([1, 0, 1]))
      >>> {name: value.tolist() for name, value in counts.items()}
      {'tp': [1, 0, 0], 'fp': [0, 1, 0], 'fn': [0, 0, 1]}
    """
    predicted, true, false = logits > 0, target > 0, target == 0
    counts = {"tp": predicted & true, "fp": predicted & false, "fn": ~predicted & true}
    return {name: value.astype(jnp.int32) for name, value in counts.items()}


def sum_depth_errors(
    prediction: Float[Array, "h w"], target: Float[Array, "h w"], scale: Any
) -> Statistics:
    """Sums one example's errors over its pixels with a target over 0, and keeps the sums.

    Absolute and squared errors are those of values divided by `scale`.

    Example:
      >>> sums = sum_depth_errors(jnp.array([[3.0, 9.0]]), jnp.array([[2.0, 0.0]]), scale=0.5)
      >>> [float(sums[name].values) for name in ("absolute", "relative", "pixels")]
      [2.0, 0.5, 1.0]
    """
    measured = target > 0
    error = jnp.where(measured, prediction - target, 0)

    def keep(terms: Float[Array, "h w"]) -> PerExample:
        # Row by row: the rounding error of a sum of h w terms in turn would grow with h w.
        return PerExample(terms.sum(axis=1).sum())

    return {
        "pixels": PerExample(measured.sum()),
        "absolute": keep(jnp.abs(error / scale)),
        "squared": keep(jnp.square(error / scale)),
        "relative": keep(jnp.abs(error) / jnp.where(measured, target, 1)),
    }
