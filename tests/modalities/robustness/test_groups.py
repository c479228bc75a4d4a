"""Modalities of one sensor: corrupted at the same level, and missing from the same examples."""

import jax
import numpy as np
import pytest

from mmjax.data.dataset import Arrays, Modality, Preparation
from mmjax.data.spec import Spec
from mmjax.modalities.robustness.conditions import list_conditions
from mmjax.modalities.robustness.corruption import corrupt_batch
from mmjax.types import Batch

EXAMPLES = 4000
NAMES = ("acceleration", "rotation", "text")


def make_batch():
    rng = np.random.default_rng(0)
    present = {m: rng.random(EXAMPLES) < 0.7 for m in NAMES}
    present["text"] |= ~present["acceleration"] & ~present["rotation"]
    inputs = {m: rng.normal(size=(EXAMPLES, 5, 2)).astype(np.float32) for m in NAMES[:2]}
    return Batch(
        inputs | {"text": rng.integers(0, 9, (EXAMPLES, 4)).astype(np.int32)},
        present,
        {m: np.full(EXAMPLES, 4, np.int32) for m in NAMES},
        {},
        {},
    )


def make_spec():
    modalities = dict.fromkeys(NAMES[:2], Modality((5, 2), sequence=True))
    modalities["text"] = Modality((4,), sequence=True, vocabulary=tuple("abcdefghi"))
    dtypes = {m: Preparation(dtype="int32" if m == "text" else "float32") for m in NAMES}
    return Spec("walks", modalities, {}, dtypes)


def list_of(members, **options):
    groups = {"sensor": members}
    conditions = list_conditions(make_spec(), Arrays(make_batch()), groups=groups, **options)
    return {c.corruption: c for c in conditions if c.modality == "sensor"}


def test_a_group_has_the_corruptions_that_its_members_share():
    same = list_of(["acceleration", "rotation"], modalities=["text"])
    assert list(same) == ["noise", "step_drop", "block_drop", "clipping", "shift", "missing"]
    assert set(same["noise"].corruptions) == {"acceleration", "rotation"}
    different = list_of(["acceleration", "text"], corruptions=["noise", "swap"])
    assert list(different) == ["main corruption"]
    assert list(list_of(NAMES)) == ["main corruption"]  # an example needs another modality


def test_a_sensor_disappears_as_a_whole():
    batch = make_batch()
    missing = list_of(["acceleration", "rotation"])["missing"]
    old = batch.present
    for level in (0.0, 0.3, 1.0):
        new = corrupt_batch(
            {},
            batch,
            level,
            jax.random.key(1),
            np.arange(EXAMPLES),
            missing=missing.missing,
            together=missing.together,
        ).present
        lost = {m: old[m] & ~np.asarray(new[m]) for m in NAMES}
        assert not lost["text"].any()
        both = old["acceleration"] & old["rotation"]
        np.testing.assert_array_equal(lost["acceleration"][both], lost["rotation"][both])
        assert not lost["acceleration"][~old["text"]].any()  # they had no other modality
        can = old["acceleration"] & old["text"]
        share, n = lost["acceleration"][can].mean(), can.sum()
        assert abs(share - level) <= 4 * np.sqrt(level * (1 - level) / n)


@pytest.mark.slow
def test_members_are_corrupted_as_each_alone():
    batch, key, indices = make_batch(), jax.random.key(2), np.arange(EXAMPLES)
    noise = list_of(["acceleration", "rotation"])["noise"].corruptions
    together = corrupt_batch(noise, batch, 0.5, key, indices).inputs
    for m in NAMES[:2]:
        alone = corrupt_batch({m: noise[m]}, batch, 0.5, key, indices).inputs[m]
        np.testing.assert_array_equal(together[m], alone)
        assert (np.asarray(alone) != batch.inputs[m]).any()
