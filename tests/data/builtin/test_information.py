import itertools
import math

import numpy as np
import pytest
from scipy.stats import entropy

from mmjax.data.builtin.information import (
    bayes_accuracy,
    binary_entropy,
    compute_marginals,
    flip_probability,
    mutual_information,
)

XOR = np.zeros((2, 2, 2))
for a, b in itertools.product((0, 1), repeat=2):
    XOR[a ^ b, a, b] = 0.25


def random_joints():
    """Tables of (label, three modalities), some with zeros, some sharp."""
    rng = np.random.default_rng(0)
    for concentration in (0.05, 0.3, 1.0):
        for _ in range(20):
            table = rng.dirichlet(np.full(3 * 2 * 3 * 2, concentration)).reshape(3, 2, 3, 2)
            table[rng.random(table.shape) < 0.2] = 0
            yield table / table.sum()


def test_an_exclusive_or_tells_nothing_alone_and_all_together():
    tables = compute_marginals(XOR, "ab")
    bits = {subset: mutual_information(table) for subset, table in tables.items()}
    accuracy = {subset: bayes_accuracy(table) for subset, table in tables.items()}
    assert bits == {"none": 0, "a": 0, "b": 0, "a+b": 1}
    assert accuracy == {"none": 0.5, "a": 0.5, "b": 0.5, "a+b": 1}


@pytest.mark.parametrize("p", [0.0, 0.01, 0.11, 0.25, 0.5])
def test_the_binary_symmetric_channel(p):
    channel = np.array([[1 - p, p], [p, 1 - p]]) / 2
    assert mutual_information(channel) == pytest.approx(1 - binary_entropy(p), abs=1e-12)
    assert bayes_accuracy(channel) == pytest.approx(1 - p)


@pytest.mark.parametrize("e", [0.1, 0.5])
def test_the_erasure_channel(e):
    channel = np.array([[1 - e, 0, e], [0, 1 - e, e]]) / 2
    assert mutual_information(channel) == pytest.approx(1 - e)
    assert bayes_accuracy(channel) == pytest.approx(1 - e / 2)


def test_information_is_the_difference_of_scipys_entropies():
    for joint in random_joints():
        table = joint.reshape(3, -1)
        apart = entropy(table.sum(1), base=2) + entropy(table.sum(0), base=2)
        expected = apart - entropy(table.ravel(), base=2)
        assert mutual_information(table) == pytest.approx(expected, abs=1e-12)


def test_the_chain_rule_and_more_modalities_never_tell_less():
    for joint in random_joints():
        tables = compute_marginals(joint, "abc")
        bits = {subset: mutual_information(table) for subset, table in tables.items()}
        accuracy = {subset: bayes_accuracy(table) for subset, table in tables.items()}
        # I(Y; A, B) = I(Y; A) + Σ_a P(a) I(Y; B | a), the second term by its own definition
        given = [
            part.sum() * mutual_information(part / part.sum())
            for part in np.moveaxis(joint.sum(axis=3), 1, 0)
            if part.sum()
        ]
        assert bits["a+b"] == pytest.approx(bits["a"] + sum(given), abs=1e-12)
        for small, large in itertools.product(tables, repeat=2):
            if small == "none" or set(small) <= set(large):
                assert bits[small] <= bits[large] + 1e-12
                assert accuracy[small] <= accuracy[large] + 1e-12
        assert len(tables) == 8 and bits["none"] == pytest.approx(0, abs=1e-12)


def test_marginals_by_the_slow_way():
    joint = next(random_joints())
    table = compute_marginals(joint, "abc")["a+c"]
    for y, a, c in itertools.product(range(3), range(2), range(2)):
        assert table[y, 2 * a + c] == pytest.approx(sum(joint[y, a, b, c] for b in range(3)))


def test_entropy_and_its_inverse():
    assert binary_entropy(0.0) == 0 and binary_entropy(0.5) == 1
    assert binary_entropy(0.25) == pytest.approx(2 - 0.75 * math.log2(3))
    assert flip_probability(1.0) == 0
    # The channel that tells half a bit flips 11.0028 % of its bits.
    assert flip_probability(0.5) == pytest.approx(0.110027864, abs=1e-8)
    for bits in np.linspace(0, 1, 101):
        p = flip_probability(float(bits))
        assert 0 <= p <= 0.5
        assert 1 - binary_entropy(p) == pytest.approx(bits, abs=1e-12)


@pytest.mark.parametrize("bits", [-0.1, 1.1, float("nan")])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ValueError, match=f"carry {bits} bits; give a number from 0 to 1"):
        flip_probability(bits)


def test_what_is_no_table_of_probabilities_is_refused():
    with pytest.raises(ValueError, match=r"minimum 0\.0 and sum 2\.0; probabilities"):
        compute_marginals(2 * XOR, "ab")
    with pytest.raises(ValueError, match=r"minimum -1\.0"):
        compute_marginals(np.array([[-1.0, 2.0]]), "a")
    with pytest.raises(ValueError, match="3 axes and there are 3 modalities"):
        compute_marginals(XOR, "abc")
