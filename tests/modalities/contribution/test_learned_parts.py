"""The learned decomposition: gates, and the scaling that its couplings rely on."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.modalities.contribution.learned_parts import PairedExamples, learn_information_parts
from mmjax.modalities.contribution.sinkhorn import couple, match_class_frequencies

GATES = {
    "and": (lambda a, b: (a, b, a & b), (0.311, 0, 0, 0.5)),
    "xor": (lambda a, b: (a, b, a ^ b), (0, 0, 0, 1)),
    "unique": (lambda a, b: (a, b, a), (0, 1, 0, 0)),
    "redundant": (lambda a, b: (a, a, a), (1, 0, 0, 0)),
}


def draw(gate, count, seed):
    """Each bit as -1 or 1 beside five numbers that tell nothing."""
    rng = np.random.default_rng(seed)
    first, second, target = GATES[gate][0](*rng.integers(0, 2, (2, count)))

    def write(bits):
        noise = rng.uniform(-1, 1, (count, 5))
        return np.concatenate([2.0 * bits[:, None] - 1, noise], axis=1)

    return PairedExamples(write(first), write(second), target)


@pytest.mark.slow
@pytest.mark.parametrize("gate", GATES)
def test_gates(gate):
    """To 0.05 bits: a class of 0.97 bits is an error of one example in 300."""
    parts = learn_information_parts(draw(gate, 4096, 0), draw(gate, 2048, 1), classes=2)
    np.testing.assert_allclose(parts[:4], GATES[gate][1], atol=0.05)


def test_a_coupling_has_the_marginals_of_both_sides():
    rng = np.random.default_rng(0)
    prior = jnp.array([0.2, 0.3, 0.5])
    first, second = (
        match_class_frequencies(jnp.asarray(rng.dirichlet(np.ones(3), 8), jnp.float32), prior)
        for _ in range(2)
    )
    np.testing.assert_allclose(first.sum(axis=0), prior, atol=1e-6)
    np.testing.assert_allclose(first.sum(axis=1), 1 / 8, atol=1e-3)
    logits = jnp.asarray(rng.normal(size=(8, 8, 3)), jnp.float32)
    coupling = np.exp(couple(logits, jnp.log(first), jnp.log(second)))
    np.testing.assert_allclose(coupling.sum(axis=0), second, rtol=1e-4)
    np.testing.assert_allclose(coupling.sum(axis=1), first, rtol=2e-2)


def test_too_few_examples_are_refused():
    few = PairedExamples(np.zeros((4, 2)), np.zeros((4, 2)), np.zeros(4, int))
    with pytest.raises(ValueError, match="4 examples"):
        learn_information_parts(few, few, classes=2)
