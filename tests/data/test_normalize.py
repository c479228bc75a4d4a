import numpy as np
import pytest

from mmjax.data.dataset import Arrays, Modality
from mmjax.data.normalize import (
    StandardizedSource,
    compute_moments,
    compute_scale,
    merge_moments,
    reshape_to_features,
    standardize_batch,
)
from mmjax.types import Batch

SPECS = {
    "vector": Modality((3,)),
    "image": Modality((4, 5, 2)),
    "frames": Modality((6, 3), sequence=True),
    "wave": Modality((7,), sequence=True),
}


@pytest.mark.parametrize("seed", range(20))
def test_merged_parts_have_the_moments_of_the_whole(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rng.integers(3, 200), 4)) * 10.0 ** rng.integers(-3, 4) + 1e3
    cuts = np.sort(rng.choice(np.arange(1, len(values)), rng.integers(1, 3), replace=False))
    total = None
    for part in np.split(values, cuts):
        total = merge_moments(total, compute_moments(part)) if total else compute_moments(part)
    assert total.number == len(values)
    np.testing.assert_allclose(total.mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(compute_scale(total).deviation, values.std(axis=0), rtol=1e-9)


def test_a_constant_is_shifted_and_not_divided():
    for constant in (0.0, 0.1, 1e6, -3e-8):
        values = np.full((90, 1), constant, np.float32)
        total = compute_moments(values[:7])
        for start in range(7, 90, 11):
            total = merge_moments(total, compute_moments(values[start : start + 11]))
        mean, deviation = compute_scale(total)
        assert deviation == 1 and abs(mean - values[0]) <= 1e-12 * max(1, abs(constant))


def test_small_differences_from_a_large_mean_are_kept():
    values = np.array([[1000.0], [1000.5]], np.float32)
    np.testing.assert_allclose(compute_scale(compute_moments(values)).deviation, 0.25)


def some_batch(seed, examples=40):
    """Values of known moments where they are real, and nonsense elsewhere."""
    rng = np.random.default_rng(seed)
    inputs, present, lengths = {}, {}, {}
    for name, spec in SPECS.items():
        x = rng.normal(3.0, 2.0, (examples, *spec.shape))
        here = rng.random(examples) < 0.7
        x[~here] = np.nan
        if spec.sequence:
            lengths[name] = rng.integers(1, spec.shape[0] + 1, examples).astype(np.int32)
            x[np.arange(spec.shape[0])[None] >= lengths[name][:, None]] = 1e9
        inputs[name], present[name] = x.astype(np.float32), here
    return Batch(inputs, present, lengths, {"y": np.zeros(examples)}, {"y": here})


def real_values(batch, name):
    """Slow and obvious: the features of what is neither missing nor padding."""
    rows = []
    for i, x in enumerate(batch.inputs[name]):
        if batch.present[name][i]:
            x = x[: batch.lengths[name][i]] if name in batch.lengths else x
            rows += x.reshape(-1, 1 if name == "wave" else x.shape[-1]).tolist()
    return np.array(rows, np.float64)


def test_real_values_get_mean_0_and_deviation_1_and_the_rest_0():
    batch = some_batch(0)
    scales = {name: compute_scale(compute_moments(real_values(batch, name))) for name in SPECS}
    after = standardize_batch(batch, SPECS, scales)
    for name in SPECS:
        values = real_values(after, name)
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(values.std(axis=0), 1, atol=1e-6)
        assert np.count_nonzero(after.inputs[name]) == values.size  # a normal draw is never 0
        assert after.inputs[name].dtype == np.float32


def test_a_source_is_standardized_as_it_is_read():
    batch = some_batch(1)
    scales = {"frames": compute_scale(compute_moments(real_values(batch, "frames")))}
    source = StandardizedSource(Arrays(batch), SPECS, scales)
    indices = np.array([5, 0, 5, 39])
    whole = standardize_batch(batch, SPECS, scales)
    assert len(source) == 40
    for name in SPECS:
        expected = whole.inputs[name][indices]
        np.testing.assert_array_equal(source.take(indices).inputs[name], expected)
    np.testing.assert_array_equal(whole.inputs["vector"], batch.inputs["vector"])


def test_features_are_the_last_axis_but_for_sequences_of_numbers():
    for name, width in {"vector": 3, "image": 2, "frames": 3, "wave": 1}.items():
        assert reshape_to_features(np.zeros((4, *SPECS[name].shape)), SPECS[name]).shape[1] == width
