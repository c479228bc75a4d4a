"""Rows of logits and classes from predictions of examples, tokens or pixels."""

import numpy as np
from jaxtyping import Float, Integer, Shaped

CLASS_KINDS = ("classification", "sequence", "segmentation")


def flatten_labeled(
    prediction: Float[np.ndarray, "..."], target: Shaped[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, "m c"], Integer[np.ndarray, " m"]]:
    """Returns the logits, in float64, and the classes of all labeled positions.

    Args:
      prediction: logits [n *positions c].
      target: classes [n *positions]; -1 is not a label.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> logits, classes = flatten_labeled(np.zeros((2, 3, 4)), np.array([[0, 1, -1], [3, 2, 2]]))
      >>> logits.shape, classes.tolist()
      ((5, 4), [0, 1, 3, 2, 2])
    """
    if prediction.shape[:-1] != target.shape or not np.issubdtype(target.dtype, np.integer):
        raise ValueError(
            f"it needs logits [n ... classes] and targets of classes [n ...], but got "
            f"{list(prediction.shape)} and {target.dtype}{list(target.shape)}"
        )
    # Tokens, pixels or examples become rows; -1 marks the unlabeled ones.
    logits, classes = prediction.reshape(-1, prediction.shape[-1]), target.reshape(-1)
    return logits[classes >= 0].astype(np.float64), classes[classes >= 0]


def choose_classes(
    prediction: Float[np.ndarray, "..."], target: Shaped[np.ndarray, "..."]
) -> tuple[Integer[np.ndarray, " m"], Integer[np.ndarray, " m"], int]:
    """Returns the targets and the classes of the highest logits, and the number of classes."""
    logits, classes = flatten_labeled(prediction, target)
    return classes, logits.argmax(axis=-1), logits.shape[-1]


def compute_probabilities(logits: Float[np.ndarray, "m c"]) -> Float[np.ndarray, "m c"]:
    """Computes softmax over the classes."""
    from scipy import special  # a slow import, which training need not wait for

    return np.asarray(special.softmax(logits, axis=-1))
