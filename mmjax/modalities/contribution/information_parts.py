"""Partial information decomposition of discrete variables, exact: redundant, unique, synergistic.

The information of X1 and X2 about Y is split into what both tell (redundancy), what only one tells
(uniqueness), and what only both together tell (synergy), after Bertschinger et al., "Quantifying
unique information", Entropy 2014. Among all q with the pairwise marginals q(x1, y) = p(x1, y) and
q(x2, y) = p(x2, y), the least I_q(X1 X2; Y) has no synergy; the rest of I_p is synergy.

With F(q) = Σ q log q(y | x1, x2), so that I_q = H(Y) + F(q), the problem is convex, and its dual is

    max  Σ p(x1, y) λ(x1, y) + Σ p(x2, y) μ(x2, y)
    s.t. Σ_y exp(λ(x1, y) + μ(x2, y)) <= 1 for every x1, x2,

since Σ q log q(y | x1, x2) - Σ q c is a sum of Kullback-Leibler divergences if c obeys the
constraint. An interior-point method solves the dual: with the barrier τ Σ log(1 - Σ_y exp(c)), the
optimum for τ gives the primal q = τ exp(c) / (1 - Σ_y exp(c)), whose gap is at most τ |X1| |X2|.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mmjax.data.builtin.information import mutual_information

_FIRST_BARRIER = 1e-1
_BARRIER_FACTOR = 0.2
_MAX_NEWTON_STEPS = 100
_BACKTRACKING = 0.5


class InformationParts(NamedTuple):
    """Parts of the information of two variables about a third one, in bits.

    Attributes:
      redundancy: what either of both tells.
      unique_first: what only the first one tells.
      unique_second: what only the second one tells.
      synergy: what only both together tell.
      gap: upper bound of the error of each of them, by duality; 0 if it is not known.
    """

    redundancy: float
    unique_first: float
    unique_second: float
    synergy: float
    gap: float = 0.0

    @property
    def total(self) -> float:
        """Returns the information of both together, the sum of the parts."""
        return self.redundancy + self.unique_first + self.unique_second + self.synergy


def decompose_information(
    joint: Float[np.ndarray, "x1 x2 y"], tolerance: float = 1e-7
) -> InformationParts:
    """Decomposes the information of X1 and X2 about Y, given their joint probabilities.

    Args:
      joint: P(x1, x2, y), in float64.
      tolerance: largest error of the parts, in bits.

    Raises:
      ValueError: the table does not hold probabilities of three variables.

    Example:
      >>> xor = np.zeros((2, 2, 2))
      >>> for a, b in np.ndindex(2, 2):
      ...     xor[a, b, a ^ b] = 0.25
      >>> [round(part, 4) + 0.0 for part in decompose_information(xor)]
      [0.0, 0.0, 0.0, 1.0, 0.0]
    """
    joint = np.asarray(joint, np.float64)
    if joint.ndim != 3:
        raise ValueError(f"The table has {joint.ndim} axes; it needs three, those of X1, X2 and Y.")
    if not joint.size or joint.min() < 0 or not math.isclose(joint.sum(), 1, rel_tol=1e-9):
        raise ValueError(
            f"The table has minimum {joint.min(initial=0)} and sum {joint.sum()}; probabilities "
            "are at least 0 and sum to 1."
        )
    first, second = joint.sum(axis=1), joint.sum(axis=0)
    # Symbols that never occur constrain nothing.
    first, second = first[first.any(axis=1)], second[second.any(axis=1)]
    low, high = _minimize_conditional(first, second, tolerance * math.log(2))
    p_y = first.sum(axis=0)
    entropy = -float(np.sum(p_y[p_y > 0] * np.log2(p_y[p_y > 0])))
    least = entropy + high / math.log(2)
    whole = mutual_information(joint.reshape(-1, joint.shape[2]).T)
    of_first, of_second = mutual_information(first.T), mutual_information(second.T)
    # Round-off may make a part of zero slightly negative.
    parts = (of_first + of_second - least, least - of_second, least - of_first, whole - least)
    shared, only_first, only_second, synergy = (max(part, 0.0) for part in parts)
    gap = max(high - low, 0.0) / math.log(2)
    return InformationParts(shared, only_first, only_second, synergy, gap)


def _minimize_conditional(
    first: Float[np.ndarray, "x1 y"], second: Float[np.ndarray, "x2 y"], tolerance: float
) -> tuple[float, float]:
    """Bounds the least Σ q log q(y | x1, x2), in nats: (dual value, value of a feasible q)."""
    pairs = len(first) * len(second)
    barrier, logits = _FIRST_BARRIER, _start_inside(first, second)
    low, high = -np.inf, np.inf
    while True:
        logits = _center(logits, first, second, barrier)
        low = max(low, _evaluate_dual(*logits, first, second))
        coupling = _round_to_marginals(_get_primal(*logits, barrier), first, second)
        high = min(high, _evaluate_primal(coupling))
        # Beyond this barrier, float64 has no digits left to improve.
        if high - low <= tolerance or barrier * pairs < 1e-14:
            return low, high
        barrier *= _BARRIER_FACTOR


_Logits = tuple[Float[np.ndarray, "x1 y"], Float[np.ndarray, "x2 y"]]


def _start_inside(first: np.ndarray, second: np.ndarray) -> _Logits:
    """Returns logits strictly inside the constraints: by Cauchy and Schwarz, Σ √(p p') <= 1."""
    with np.errstate(divide="ignore"):
        # -inf where a pair never occurs: q is 0 there.
        conditional = [np.log(p / p.sum(axis=1, keepdims=True)) for p in (first, second)]
    return 0.5 * conditional[0] - 0.1, 0.5 * conditional[1]


def _get_primal(
    of_first: np.ndarray, of_second: np.ndarray, barrier: float
) -> Float[np.ndarray, "x1 x2 y"]:
    """Returns q = τ exp(c) / (1 - Σ_y exp(c)), whose marginals are right at the optimum."""
    powers = np.exp(of_first[:, None] + of_second[None])
    return barrier * powers / (1 - powers.sum(axis=2, keepdims=True))


def _center(logits: _Logits, first: np.ndarray, second: np.ndarray, barrier: float) -> _Logits:
    """Maximizes the dual with its barrier by damped Newton steps."""
    of_first, of_second = logits
    is_first, is_second = _find_free_logits(first, second)

    def evaluate(of_first: np.ndarray, of_second: np.ndarray) -> float:
        slack = 1 - np.exp(of_first[:, None] + of_second[None]).sum(axis=2)
        if slack.min() <= 0:
            return -np.inf
        dual = _evaluate_dual(of_first, of_second, first, second)
        return dual + float(barrier * np.log(slack).sum())

    value = evaluate(of_first, of_second)
    for _ in range(_MAX_NEWTON_STEPS):
        primal = _get_primal(of_first, of_second, barrier)
        of_rows = (first - primal.sum(axis=1))[is_first]
        of_columns = (second - primal.sum(axis=0))[is_second]
        gradient = np.concatenate([of_rows, of_columns])
        free = np.concatenate([is_first.ravel(), is_second.ravel()])
        step = _solve_scaled(_compute_hessian(primal, barrier)[np.ix_(free, free)], gradient)
        decrement = float(gradient @ step)
        if decrement <= 1e-3 * barrier:
            break
        size = 1.0
        # Shorter until the step stays inside the constraints and gains enough (Armijo's rule).
        while size > 1e-10:
            moved = of_first.copy(), of_second.copy()
            moved[0][is_first] += size * step[: len(of_rows)]
            moved[1][is_second] += size * step[len(of_rows) :]
            new = evaluate(*moved)
            if new >= value + 0.1 * size * decrement:
                break
            size *= _BACKTRACKING
        else:
            break
        (of_first, of_second), value = moved, new
    return of_first, of_second


def _solve_scaled(
    hessian: Float[np.ndarray, "n n"], gradient: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Solves hessian x = gradient after Jacobi scaling."""
    # The diagonal spans the range of the probabilities, many orders of magnitude.
    scale = 1 / np.sqrt(np.diag(hessian))
    scaled = hessian * scale[:, None] * scale[None]
    # The ridge is below the rounding of float64; it keeps a singular matrix solvable.
    return scale * np.linalg.solve(scaled + 1e-14 * np.eye(len(scaled)), scale * gradient)


def _find_free_logits(
    first: np.ndarray, second: np.ndarray
) -> tuple[Bool[np.ndarray, "x1 y"], Bool[np.ndarray, "x2 y"]]:
    """Returns which logits are free; one per class is fixed, since λ + a and μ - a are the same."""
    is_second = second > 0
    for y in range(second.shape[1]):
        if is_second[:, y].any():
            is_second[np.argmax(second[:, y]), y] = False
    return first > 0, is_second


def _compute_hessian(primal: Float[np.ndarray, "x1 x2 y"], barrier: float) -> np.ndarray:
    """Computes minus the Hessian: of one pair, diag(q) + q qᵀ / τ in the classes."""
    x1, x2, y = primal.shape
    eye = np.eye(y)[None, None]
    cells = primal[..., None] * eye + primal[..., None] * primal[:, :, None] / barrier
    hessian = np.zeros(((x1 + x2) * y, (x1 + x2) * y))
    for i, block in enumerate(cells.sum(axis=1)):
        hessian[i * y : (i + 1) * y, i * y : (i + 1) * y] = block
    for j, block in enumerate(cells.sum(axis=0), start=x1):
        hessian[j * y : (j + 1) * y, j * y : (j + 1) * y] = block
    mixed = cells.transpose(0, 2, 1, 3).reshape(x1 * y, x2 * y)
    hessian[: x1 * y, x1 * y :], hessian[x1 * y :, : x1 * y] = mixed, mixed.T
    return hessian


def _evaluate_dual(
    of_first: np.ndarray, of_second: np.ndarray, first: np.ndarray, second: np.ndarray
) -> float:
    """Returns the value of the dual, a lower bound, since the logits obey the constraints."""
    is_first, is_second = first > 0, second > 0
    return float(
        np.sum(first[is_first] * of_first[is_first])
        + np.sum(second[is_second] * of_second[is_second])
    )


def _round_to_marginals(
    primal: Float[np.ndarray, "x1 x2 y"], first: np.ndarray, second: np.ndarray
) -> Float[np.ndarray, "x1 x2 y"]:
    """Returns a q near the primal with exactly the marginals (Altschuler et al., NeurIPS 2017)."""
    rows = primal.sum(axis=1)
    primal = primal * np.minimum(first / np.where(rows > 0, rows, 1), 1)[:, None]
    columns = primal.sum(axis=0)
    primal = primal * np.minimum(second / np.where(columns > 0, columns, 1), 1)[None]
    missing_first = np.maximum(first - primal.sum(axis=1), 0)
    missing_second = np.maximum(second - primal.sum(axis=0), 0)
    mass = missing_first.sum(axis=0)
    return primal + missing_first[:, None] * missing_second[None] / np.where(mass > 0, mass, 1)


def _evaluate_primal(coupling: Float[np.ndarray, "x1 x2 y"]) -> float:
    """Computes Σ q log q(y | x1, x2), in nats."""
    pairs = np.broadcast_to(coupling.sum(axis=2, keepdims=True), coupling.shape)
    is_positive = coupling > 0
    q, pair = coupling[is_positive], pairs[is_positive]
    return float(np.sum(q * np.log(q / pair)))
