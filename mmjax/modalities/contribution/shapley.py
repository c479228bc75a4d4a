"""Contributions of modalities from the value of every subset: Shapley values and interactions.

A game is an array of values [2^M ...], one row per subset in the order of
`mmjax.modalities.subsets.make_all_subsets`: row i has modality j if bit j of i is 1. A value is
any number that should be large, such as a metric; further axes (seeds, examples, metrics) are kept.

Sources: Shapley 1953; of modalities, Hu et al. (SHAPE), IJCAI 2022; interaction indices as of
Lundberg et al. 2018, with half of each pair's interaction on either side of the diagonal;
InterSHAP, Wenderoth et al., arXiv 2412.15828; CUR, Wu et al., ICML 2022.
"""

import itertools
import math

import numpy as np
from jaxtyping import Float

Game = Float[np.ndarray, "subsets ..."]


def count_players(values: Game) -> int:
    """Returns M, the number of modalities of a game of 2^M values.

    Raises:
      ValueError: the number of values is not a power of 2 from 2 on.
    """
    count = len(values).bit_length() - 1
    if len(values) != 2**count or count < 1:
        raise ValueError(
            f"A game has {len(values)} values; M modalities need 2^M, one per subset, as "
            "make_all_subsets lists them."
        )
    return count


def compute_shapley_values(values: Game) -> Float[np.ndarray, "m ..."]:
    """Computes φ_m = Σ_S |S|! (M - |S| - 1)! / M! (v(S ∪ m) - v(S)) over the subsets without m.

    They sum to v(all) - v(none); a modality that changes nothing has 0. All subsets are used, so
    that the values are exact.

    Example:
      >>> compute_shapley_values(np.array([0.5, 0.5, 0.5, 1.0])).tolist()  # synergy: XOR
      [0.25, 0.25]
      >>> compute_shapley_values(np.array([0.5, 1.0, 1.0, 1.0])).tolist()  # two copies
      [0.25, 0.25]
    """
    count = count_players(values)
    shapley = np.zeros((count, *values.shape[1:]))
    for m, row in itertools.product(range(count), range(len(values))):
        if not row >> m & 1:
            size = row.bit_count()
            # The share of the orders of all modalities in which exactly S comes before m.
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            shapley[m] += weight * (values[row | 1 << m] - values[row])
    return shapley


def compute_interaction_indices(values: Game) -> Float[np.ndarray, "m m ..."]:
    """Computes the Shapley interaction index of every pair, and what each modality does alone.

    For i ≠ j, over the subsets without i and j:
    φ_ij = Σ_S |S|! (M - |S| - 2)! / (2 (M - 1)!) (v(S ∪ ij) - v(S ∪ i) - v(S ∪ j) + v(S)).
    The diagonal is φ_ii = φ_i - Σ_j φ_ij, so that a row sums to
    the Shapley value, and the matrix to v(all) - v(none). An index is positive if two modalities
    tell more together than apart (synergy), and negative if they tell the same (redundancy).

    Example:
      >>> compute_interaction_indices(np.array([0.5, 0.5, 0.5, 1.0])).tolist()  # XOR
      [[0.0, 0.25], [0.25, 0.0]]
      >>> compute_interaction_indices(np.array([0.5, 1.0, 1.0, 1.0])).tolist()  # two copies
      [[0.5, -0.25], [-0.25, 0.5]]
    """
    count = count_players(values)
    indices = np.zeros((count, count, *values.shape[1:]))
    for i, j in itertools.combinations(range(count), 2):
        both = 1 << i | 1 << j
        for row in range(len(values)):
            if not row & both:
                size = row.bit_count()
                orders = math.factorial(size) * math.factorial(count - size - 2)
                alone = values[row | 1 << i] + values[row | 1 << j]
                indices[i, j] += (
                    orders
                    / (2 * math.factorial(count - 1))
                    * (values[row | both] + values[row] - alone)
                )
        indices[j, i] = indices[i, j]
    shapley = compute_shapley_values(values)
    for i in range(count):
        indices[i, i] = shapley[i] - indices[i].sum(axis=0)
    return indices


def compute_intershap(values: Game) -> Float[np.ndarray, "..."]:
    """Computes InterSHAP, the share of interactions: Σ_{i≠j} |φ_ij| / Σ_ij |φ_ij|; NaN of 0 / 0.

    It does not distinguish synergy from redundancy; the sign of the index does.

    Example:
      >>> float(compute_intershap(np.array([0.5, 0.5, 0.5, 1.0])))  # XOR: all is interaction
      1.0
    """
    sizes = np.abs(compute_interaction_indices(values))
    total = sizes.sum(axis=(0, 1))
    interactions = total - np.trace(sizes)
    # A game of constant value has nothing to share out.
    return np.where(total > 0, interactions / np.where(total > 0, total, 1.0), np.nan)


def compute_conditional_utilization(values: Game) -> Float[np.ndarray, "m ..."]:
    """Computes u_m = (v(all) - v(without m)) / |v(all)|, the share lost without modality m.

    NaN if v(all) is 0. Source: Wu et al., ICML 2022, where v is accuracy.

    Example:
      >>> compute_conditional_utilization(np.array([0.5, 1.0, 0.5, 1.0])).tolist()  # unique to a
      [0.5, 0.0]
    """
    count, whole = count_players(values), values[-1]
    lost = np.stack([whole - values[(len(values) - 1) ^ 1 << m] for m in range(count)])
    return np.where(whole != 0, lost / np.where(whole != 0, np.abs(whole), 1.0)[None], np.nan)
