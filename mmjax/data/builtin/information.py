"""What modalities can tell of a label, exactly, from the table of their joint probabilities."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import scipy  # its parts are imported when they are first used
from jaxtyping import Float

Table = Float[np.ndarray, "y x"]


def mutual_information(joint: Table) -> float:
    """I(Y; X) = Σ P(y, x) log₂(P(y, x) / (P(y) P(x))), in bits, of a table that sums to 1."""
    apart = joint.sum(axis=1)[:, None] * joint.sum(axis=0)[None]
    here = joint > 0
    return float(np.sum(joint[here] * np.log2(joint[here] / apart[here])))


def bayes_accuracy(joint: Table) -> float:
    """Σ_x max_y P(y, x): how often the best guess of Y from X is right."""
    return float(joint.max(axis=0).sum())


def marginals(joint: Float[np.ndarray, "y ..."], modalities: Sequence[str]) -> dict[str, Table]:
    """The table of the label and the modalities of every subset, taken together.

    Args:
      joint: probability of (label, symbol of the first modality, of the second, ...).
      modalities: their names, in the order of the axes.

    Returns:
      {subset: [label, symbols]}; a subset is written as in "a+c", the empty one as "none".

    Raises:
      ValueError: if the table is not one of probabilities, or has another number of axes.
    """
    if joint.ndim != 1 + len(modalities):
        raise ValueError(
            f"The table has {joint.ndim} axes and there are {len(modalities)} modalities; it needs "
            "one axis for the label and one for each modality."
        )
    if joint.min() < 0 or not math.isclose(joint.sum(), 1, rel_tol=1e-9):
        raise ValueError(
            f"The table has minimum {joint.min()} and sum {joint.sum()}; "
            "probabilities are at least 0 and sum to 1."
        )
    axes = range(1, joint.ndim)
    subsets = itertools.chain.from_iterable(
        itertools.combinations(axes, n) for n in range(len(axes) + 1)
    )
    return {
        "+".join(modalities[axis - 1] for axis in kept) or "none": joint.sum(
            axis=tuple(set(axes) - set(kept))
        ).reshape(len(joint), -1)
        for kept in subsets
    }


def binary_entropy(p: float) -> float:
    """H(p) = -p log₂ p - (1 - p) log₂(1 - p), in bits."""
    return float((scipy.special.entr(p) + scipy.special.entr(1 - p)) / math.log(2))


def flip_probability(bits: float) -> float:
    """The p of 0 to 1/2 at which a fair bit, flipped with probability p, still tells `bits`.

    This inverts the capacity of the binary symmetric channel, 1 - H(p).

    Raises:
      ValueError: unless `bits` lies in 0 to 1.
    """
    if not 0 <= bits <= 1:
        raise ValueError(f"A flipped bit tells {bits} bits; give a number from 0 to 1.")
    root = scipy.optimize.brentq(lambda p: 1 - binary_entropy(p) - bits, 0, 0.5, xtol=1e-15)
    return float(root)
