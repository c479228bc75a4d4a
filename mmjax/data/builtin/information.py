"""Exact information of modalities about a label, from the table of their joint probabilities."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import scipy  # its parts are imported when they are first used
from jaxtyping import Float

_JointTable = Float[np.ndarray, "y x"]


def mutual_information(joint: _JointTable) -> float:
    """Computes I(Y; X) = Σ P(y, x) log₂(P(y, x) / (P(y) P(x))) in bits; the table sums to 1.

    Example:
      >>> mutual_information(np.array([[0.5, 0.0], [0.0, 0.5]]))
      1.0
    """
    # I(Y; X) = sum p(y, x) log2(p(y, x) / (p(y) p(x)))
    independent = joint.sum(axis=1)[:, None] * joint.sum(axis=0)[None]
    is_positive = joint > 0  # 0 log 0 is 0
    p, q = joint[is_positive], independent[is_positive]
    return float(np.sum(p * np.log2(p / q)))


def bayes_accuracy(joint: _JointTable) -> float:
    """Computes Σ_x max_y P(y, x), the accuracy of the best classifier of Y from X.

    Example:
      >>> bayes_accuracy(np.array([[0.5, 0.25], [0.0, 0.25]]))
      0.75
    """
    # The best guess given x is the most likely y, which is right with probability max_y p(y, x).
    return float(joint.max(axis=0).sum())


def compute_marginals(
    joint: Float[np.ndarray, "y ..."], modalities: Sequence[str]
) -> dict[str, _JointTable]:
    """Computes the table of the label and the joint symbols of every subset of modalities.

    Args:
      joint: probability of (label, symbol of the first modality, of the second, ...).
      modalities: their names, in the order of the axes.

    Returns:
      {subset: [label, symbols]}; a subset is named as in "a+c", the empty one "none".

    Raises:
      ValueError: if the table does not hold probabilities, or has another number of axes.

    Example:
      >>> list(compute_marginals(np.full((2, 2, 2), 1 / 8), ["a", "b"]))
      ['none', 'a', 'b', 'a+b']
    """
    if joint.ndim != 1 + len(modalities):
        raise ValueError(
            f"The table has {joint.ndim} axes and there are {len(modalities)} modalities; it needs "
            "one axis for the label and one per modality."
        )
    if joint.min() < 0 or not math.isclose(joint.sum(), 1, rel_tol=1e-9):
        raise ValueError(
            f"The table has minimum {joint.min()} and sum {joint.sum()}; "
            "probabilities are at least 0 and sum to 1."
        )
    axes = range(1, joint.ndim)
    tables = {}
    for size in range(joint.ndim):
        for subset in itertools.combinations(axes, size):
            name = "+".join(modalities[axis - 1] for axis in subset) or "none"
            others = tuple(set(axes) - set(subset))
            tables[name] = joint.sum(axis=others).reshape(len(joint), -1)
    return tables


def binary_entropy(p: float) -> float:
    """Computes H(p) = -p log₂ p - (1 - p) log₂(1 - p) in bits.

    Example:
      >>> binary_entropy(0.5)
      1.0
    """
    return float((scipy.special.entr(p) + scipy.special.entr(1 - p)) / math.log(2))


def flip_probability(bits: float) -> float:
    """Solves 1 - H(p) = bits for p in 0 to 1/2.

    That is the probability of a flip at which a fair bit still carries `bits` of information: the
    inverse of the capacity of the binary symmetric channel.

    Raises:
      ValueError: if `bits` is not in 0 to 1.

    Example:
      >>> flip_probability(1.0)
      0.0
    """
    if not 0 <= bits <= 1:
        raise ValueError(f"A flipped bit cannot carry {bits} bits; give a number from 0 to 1.")
    # A fair bit, flipped with probability p, keeps 1 - H(p) bits about the original. H increases
    # up to p = 1/2, so the root is unique.
    root = scipy.optimize.brentq(lambda p: 1 - binary_entropy(p) - bits, 0, 0.5, xtol=1e-15)
    return float(root)
