"""Inputs exchanged between examples: permutations, and EMAP against all combinations."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data.dataset import Arrays
from mmjax.modalities.contribution import (
    draw_partner_rows,
    permute_modality,
    project_additively,
)
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


def project(predict, batch, modalities, partners):
    return jax.jit(lambda b, p: project_additively(predict, b, list(modalities), p))(
        batch, partners
    )


def project_by_all_combinations(predict, batch, modalities):
    """Predicts every combination of the examples' modalities, and averages."""
    count = batch.size
    rows = np.array(list(itertools.product(range(count), repeat=len(modalities))))

    def mix(part):
        return {m: x[rows[:, modalities.index(m)]] for m, x in part.items()}

    mixed = batch._replace(
        inputs=mix(batch.inputs), present=mix(batch.present), lengths=mix(batch.lengths)
    )

    def combine(values):
        means = [
            np.stack([values[rows[:, m] == i].mean(axis=0) for i in range(count)])
            for m in range(len(modalities))
        ]
        return sum(means) - (len(modalities) - 1) * values.mean(axis=0)

    return jax.tree.map(lambda x: combine(np.asarray(x, np.float64)), predict(mixed))


def test_emap_of_two_modalities_is_that_of_all_combinations():
    batch, modalities = make_batch(7, "ab", missing=0.3), ["a", "b"]
    found = project(interact, batch, modalities, draw_partner_rows(7, 1, 1, seed=3))
    expected = project_by_all_combinations(interact, batch, modalities)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_emap_of_three_modalities_tends_to_that_of_all_combinations():
    batch, modalities = make_batch(6, "abc"), ["a", "b", "c"]
    expected = project_by_all_combinations(interact, batch, modalities)["y"]
    few, many = (
        project(interact, batch, modalities, draw_partner_rows(6, 2, rounds, seed=0))["y"]
        for rounds in (2, 2000)
    )
    # 12,000 draws of values of at most 1: a standard error of at most 0.01 per mean.
    np.testing.assert_allclose(many, expected, atol=0.05)
    assert np.abs(many - expected).max() < np.abs(few - expected).max()


@pytest.mark.parametrize("modalities", ["a", "ab", "abcd"])
def test_a_sum_of_modalities_is_its_own_projection(modalities):
    batch = make_batch(9, modalities)
    partners = draw_partner_rows(9, len(modalities) - 1, 1, seed=1)
    found = project(add, batch, modalities, partners)
    np.testing.assert_allclose(found, add(batch), atol=1e-4)


def test_partners_hold_every_example_once_per_round_and_column():
    partners = draw_partner_rows(5, 3, 4, seed=0)
    assert partners.shape == (20, 3)
    for part in np.split(partners, 4):
        assert (np.sort(part, axis=0) == np.arange(5)[:, None]).all()


def test_a_permuted_modality_takes_its_length_along_and_stays_missing_where_it_was():
    batch = make_batch(40, "ab", missing=0.4)
    source = Arrays(batch)
    permuted = permute_modality(source, "a", seed=1)
    rows = np.arange(40)[::-1]
    taken = permuted.take(rows)
    assert len(permuted) == 40
    np.testing.assert_array_equal(taken.present["a"], batch.present["a"][rows])
    np.testing.assert_array_equal(taken.inputs["b"], batch.inputs["b"][rows])
    origin = [
        int(np.flatnonzero((batch.inputs["a"] == x).all(axis=1))[0]) for x in taken.inputs["a"]
    ]
    assert sorted(origin) == list(range(40))
    np.testing.assert_array_equal(taken.lengths["a"], batch.lengths["a"][origin])
    moved = batch.present["a"][rows]
    assert (np.array(origin) != rows)[moved].mean() > 0.5
    np.testing.assert_array_equal(np.array(origin)[~moved], rows[~moved])
