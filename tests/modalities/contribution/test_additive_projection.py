"""EMAP against the combinations of different examples, and against its expected value."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.modalities.contribution import choose_sample_size, project_additively
from mmjax.types import Batch


def make_batch(count, modalities, seed=0, missing=0.0):
    rng = np.random.default_rng(seed)
    inputs = {m: rng.normal(size=(count, 3)).astype(np.float32) for m in modalities}
    present = {m: rng.random(count) >= missing for m in modalities}
    lengths = {modalities[0]: rng.integers(1, 4, count)}
    return Batch(inputs, present, lengths, {}, {})


def interact(batch):
    """A function of all modalities, their presence and the length of the first one."""
    sums = [jnp.where(batch.present[m], x.sum(axis=-1), 0.5) for m, x in batch.inputs.items()]
    product = jnp.tanh(jnp.prod(jnp.stack(sums), axis=0))
    return {"y": product + batch.lengths["a"] * sums[0], "z": jnp.stack(sums, axis=-1)}


def add(batch):
    return sum(jnp.sin(x).sum(axis=-1) for x in batch.inputs.values()) + batch.lengths["a"]


def project(predict, batch, **options):
    names = list(batch.inputs)
    return jax.jit(lambda b: project_additively(predict, b, names, **options))(batch)


def project_by_all_combinations(predict, batch):
    """Predicts every combination of different examples, and averages in float64."""
    modalities, count = list(batch.inputs), batch.size
    rows = np.array(list(itertools.permutations(range(count), len(modalities))))

    def mix(part):
        return {m: x[rows[:, modalities.index(m)]] for m, x in part.items()}

    parts = {name: mix(getattr(batch, name)) for name in ("inputs", "present", "lengths")}

    def combine(values):
        values, projection = np.asarray(values, np.float64), []
        for i in range(count):
            means = [values[rows[:, m] == i].mean(axis=0) for m in range(len(modalities))]
            without = values[(rows != i).all(axis=1)].mean(axis=0)
            projection.append(sum(means) - (len(modalities) - 1) * without)
        return np.stack(projection)

    return jax.tree.map(combine, predict(batch._replace(**parts)))


def test_emap_of_two_modalities_is_that_of_all_pairs_of_different_examples():
    batch = make_batch(7, "ab", missing=0.3)
    found, expected = project(interact, batch), project_by_all_combinations(interact, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_emap_of_three_modalities_tends_to_that_of_all_combinations():
    batch = make_batch(7, "abc")
    expected = project_by_all_combinations(interact, batch)["y"]
    few, many = (project(interact, batch, rounds=rounds)["y"] for rounds in (1, 2000))
    # 12,000 draws of values of at most 1: a standard error of at most 0.01 per mean.
    np.testing.assert_allclose(many, expected, atol=0.05)
    assert np.abs(many - expected).max() < np.abs(few - expected).max()


@pytest.mark.parametrize("modalities", ["a", "ab", "abc", "abcd"])
def test_a_sum_of_modalities_is_its_own_projection(modalities):
    batch = make_batch(11, modalities)
    np.testing.assert_allclose(project(add, batch), add(batch), atol=1e-4)


@pytest.mark.parametrize(("modalities", "count"), [("ab", 4), ("abc", 5)])
def test_the_estimate_is_unbiased_given_the_example(modalities, count):
    """Averages over all samples of bits, so the expectation is exact, with one example fixed."""
    table = np.random.default_rng(0).normal(size=[2] * len(modalities)).astype(np.float32)
    examples = np.array(list(itertools.product((0, 1), repeat=len(modalities))))
    others = np.array(list(itertools.product(range(len(examples)), repeat=count - 1)))
    fixed = examples[1]
    samples = np.concatenate(
        [np.broadcast_to(fixed, (len(others), 1, len(fixed))), examples[others]], axis=1
    )

    def project_sample(sample):
        inputs = {m: sample[:, i] for i, m in enumerate(modalities)}
        batch = Batch(inputs, {m: jnp.ones(count, bool) for m in modalities}, {}, {}, {})

        def predict(mixed):
            return jnp.asarray(table)[tuple(mixed.inputs[m] for m in modalities)]

        return project_additively(predict, batch, list(modalities))[0]

    projected = np.asarray(jax.jit(jax.vmap(project_sample))(samples), np.float64)
    conditional = [np.take(table, bit, axis=m).mean() for m, bit in enumerate(fixed)]
    expected = sum(conditional) - (len(modalities) - 1) * np.mean(table)
    np.testing.assert_allclose(projected.mean(), expected, atol=2e-6)
    # A share of f itself in the means would show.
    assert abs(float(table[tuple(fixed)]) - expected) > 0.05


def test_the_sample_has_no_prime_factor_below_the_number_of_modalities():
    assert [choose_sample_size(30, m) for m in (1, 2, 3, 4, 5, 6)] == [30, 30, 29, 29, 29, 29]
    assert choose_sample_size(35, 5) == 35
    with pytest.raises(ValueError, match="sample of 2 examples"):
        choose_sample_size(2, 3)
    with pytest.raises(ValueError, match="9 examples"):
        project_additively(add, make_batch(9, "abcd"), list("abcd"))
