"""The exact decomposition of information: known gates, identities, and another solver."""

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data.builtin.information import flip_probability, mutual_information
from mmjax.modalities.contribution import decompose_information


def make_gate(function):
    joint = np.zeros((2, 2, 2))
    for a, b in np.ndindex(2, 2):
        joint[a, b, function(a, b)] = 0.25
    return joint


COPY = np.zeros((2, 2, 2))
COPY[0, 0, 0] = COPY[1, 1, 1] = 0.5
# Bertschinger et al. 2014, table 1; I(AND) = H(1/4) = 0.8113, R = 0.3113.
GATES = {
    "and": (make_gate(lambda a, b: a & b), (0.311278, 0, 0, 0.5)),
    "or": (make_gate(lambda a, b: a | b), (0.311278, 0, 0, 0.5)),
    "xor": (make_gate(lambda a, b: a ^ b), (0, 0, 0, 1)),
    "unique": (make_gate(lambda a, b: a), (0, 1, 0, 0)),
    "redundant": (COPY, (1, 0, 0, 0)),
}


@pytest.mark.parametrize("gate", GATES)
def test_gates(gate):
    joint, expected = GATES[gate]
    parts = decompose_information(joint)
    np.testing.assert_allclose(parts[:4], expected, atol=1e-6)
    assert parts.gap < 1e-6


@st.composite
def tables(draw):
    shape = tuple(draw(st.integers(1, 4)) for _ in range(3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    joint = rng.dirichlet(np.full(np.prod(shape), 0.5)).reshape(shape)
    if draw(st.booleans()):
        joint = joint * (rng.random(shape) < 0.6)
        joint.flat[0] += 1e-3
    return joint / joint.sum()


@given(tables())
@settings(max_examples=15)
def test_the_parts_sum_to_the_informations_and_none_is_negative(joint):
    parts = decompose_information(joint)
    assert 0 <= parts.gap < 1e-6
    assert min(parts) >= 0
    whole = mutual_information(joint.reshape(-1, joint.shape[2]).T)
    first = mutual_information(joint.sum(axis=1).T)
    second = mutual_information(joint.sum(axis=0).T)
    atol = 2 * parts.gap + 1e-12
    assert parts.total == pytest.approx(whole, abs=2 * atol)
    assert parts.redundancy + parts.unique_first == pytest.approx(first, abs=atol)
    assert parts.redundancy + parts.unique_second == pytest.approx(second, abs=atol)
    swapped = decompose_information(joint.transpose(1, 0, 2))
    expected = [parts[0], parts[2], parts[1], parts[3]]
    np.testing.assert_allclose(swapped[:4], expected, atol=parts.gap + swapped.gap)


@pytest.mark.parametrize("seed", range(3))
def test_two_bits_and_a_bit_by_a_search_over_the_two_free_numbers(seed):
    """With bits, q has one free number per label: a grid and a local search find the least."""
    joint = np.random.default_rng(seed).dirichlet(np.ones(8)).reshape(2, 2, 2)

    def compute_information(free):
        q = joint.copy()
        for y in range(2):
            q[0, 0, y] += free[y]
            q[1, 1, y] += free[y]
            q[0, 1, y] -= free[y]
            q[1, 0, y] -= free[y]
        return mutual_information(q.reshape(4, 2).T) if q.min() >= 0 else np.inf

    bounds = [
        (-min(joint[0, 0, y], joint[1, 1, y]), min(joint[0, 1, y], joint[1, 0, y]))
        for y in range(2)
    ]
    grid = [np.linspace(low, high, 41) for low, high in bounds]
    start = min(((a, b) for a in grid[0] for b in grid[1]), key=compute_information)
    found = scipy.optimize.minimize(
        compute_information, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}
    )
    synergy = mutual_information(joint.reshape(4, 2).T) - found.fun
    assert decompose_information(joint).synergy == pytest.approx(synergy, abs=1e-5)


def test_independent_parts_add_up():
    """The chosen bits of `data.interactions`, whose label `mixed` joins independent parts."""
    flips = {"unique": 0.5, "xor": 0.6}
    joint = np.ones((1, 1, 1))
    for gate, bits in flips.items():
        flip = flip_probability(bits)
        table = GATES[gate][0]
        joint = np.kron(joint, (1 - flip) * table + flip * table[:, :, ::-1])
    parts = decompose_information(joint)
    np.testing.assert_allclose(parts[:4], [0, 0.5, 0, 0.6], atol=1e-6)


@pytest.mark.parametrize(
    "joint, message",
    [
        (np.full((2, 2, 2), 0.25), "sum"),
        (np.array([[[1.5, -0.5]]]), "minimum"),
        (np.zeros((0, 2, 2)), "sum"),
    ],
)
def test_what_is_no_table_is_refused(joint, message):
    with pytest.raises(ValueError, match=message):
        decompose_information(joint)
