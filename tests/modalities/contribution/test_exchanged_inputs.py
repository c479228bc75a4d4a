"""Permuted modalities."""

import numpy as np

from mmjax.data.dataset import Arrays
from mmjax.modalities.contribution import permute_modality
from mmjax.types import Batch


def make_batch(count, modalities, seed=0, missing=0.0):
    rng = np.random.default_rng(seed)
    inputs = {m: rng.normal(size=(count, 3)).astype(np.float32) for m in modalities}
    present = {m: rng.random(count) >= missing for m in modalities}
    lengths = {modalities[0]: rng.integers(1, 4, count)}
    return Batch(inputs, present, lengths, {}, {})


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
