import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmjax.data.builtin.digit_pairs import digit_pairs
from mmjax.data.checks.validate import validate_split

SIZES = {"train": 300, "validation": 50, "test": 80}


def scans_of(image, digit):
    """Indices of the scans that may be the one at the upper left: they are nowhere brighter."""
    images, digits = load_digits(return_X_y=True)
    fits = (images.reshape(-1, 8, 8) / 16 <= image[:8, :8] + 1e-6).all(axis=(1, 2))
    outside = np.ones((8, 8), bool)
    outside[4:, 4:] = False  # where the other digit is not
    equal = (np.abs(images.reshape(-1, 8, 8) / 16 - image[:8, :8]) < 1e-6)[:, outside].all(axis=1)
    return np.flatnonzero(fits & equal & (digits == digit))


def test_labels_are_those_of_the_real_scans_and_splits_share_none():
    data = digit_pairs(**SIZES)
    used = {}
    for split, source in data.splits.items():
        batch = source.batch
        images = batch.inputs["image"][:, :, :, 0]
        pairs = zip(images[:50], batch.targets["left"][:50], strict=True)
        left = [scans_of(image, digit) for image, digit in pairs]
        assert all(len(found) == 1 for found in left)
        used[split] = {int(found[0]) for found in left}
        assert images.shape == (SIZES[split], 12, 12)
        assert (batch.targets["left"] != batch.targets["right"]).all()
        validate_split(data.name, split, batch, data.modalities, data.tasks)
    assert not used["train"] & used["validation"]
    assert not used["train"] & used["test"]
    assert not used["validation"] & used["test"]


def test_the_right_digit_lies_at_the_lower_right():
    images, digits = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8) / 16
    batch = digit_pairs(**SIZES).splits["train"].batch
    for image, digit in zip(
        batch.inputs["image"][:30, :, :, 0], batch.targets["right"], strict=False
    ):
        alone = np.ones((8, 8), bool)
        alone[:4, :4] = False
        equal = (np.abs(images - image[4:, 4:]) < 1e-6)[:, alone].all(axis=1)
        assert digit in digits[equal]
        assert (image[:4, 8:] == 0).all() and (image[8:, :4] == 0).all()


def test_the_seed_decides():
    first, again, other = (digit_pairs(seed=s, **SIZES).splits["test"].batch for s in (0, 0, 1))
    np.testing.assert_array_equal(first.inputs["image"], again.inputs["image"])
    assert not np.array_equal(first.targets["left"], other.targets["left"])


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="validation is 0; a split needs at least 1"):
        digit_pairs(validation=0)
