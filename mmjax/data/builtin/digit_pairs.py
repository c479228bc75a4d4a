"""digit_pairs: two handwritten digits on one canvas, to be classified by position.

A small substitute for MultiMNIST (Sabour et al. 2017, "Dynamic Routing Between Capsules"), which
overlaps two MNIST digits with offsets. It uses the real 8x8 scans of scikit-learn, so that nothing
is downloaded. No scan of one split occurs in another.
"""

import numpy as np
from jaxtyping import Float, Int

from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.types import Batch

_SCAN_SIDE, _CANVAS_SIDE = 8, 12  # sides in pixels: the scans overlap in a square of side 4
_SPLIT_SHARES = {"train": 0.65, "validation": 0.1, "test": 0.25}  # of all scans
_DIGITS = tuple("0123456789")


def digit_pairs(
    *, seed: int = 0, train: int = 6016, validation: int = 1024, test: int = 1536
) -> Dataset:
    """Makes the data set in memory.

    Modality `image`, 12x12x1 in 0 to 1: one digit at the upper left, one of another class at the
    lower right, overlapped by the maximum. Tasks `left` and `right`: the classes of the digits.

    Args:
      seed: random seed of the split of the scans and of the pairs.
      train: number of training examples.
      validation: number of validation examples.
      test: number of test examples.

    Raises:
      ValueError: if a size is less than 1.

    Example:
      >>> data = digit_pairs(train=64, validation=16, test=16)
      >>> data.splits["train"].batch.inputs["image"].shape
      (64, 12, 12, 1)
    """
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    images = (images.reshape(-1, _SCAN_SIDE, _SCAN_SIDE) / 16).astype(np.float32)
    rng = np.random.default_rng(seed)
    ends = np.round(np.cumsum(list(_SPLIT_SHARES.values())) * len(images)).astype(int)
    pools = dict(zip(_SPLIT_SHARES, np.split(rng.permutation(len(images)), ends), strict=False))
    sizes = {"train": train, "validation": validation, "test": test}
    splits = {}
    for split, size in sizes.items():
        pairs = _draw_pairs(digits, pools[split], size, split, rng)
        splits[split] = Arrays(_make_batch(images, digits, pairs))
    return Dataset(
        name="digit_pairs",
        modalities={"image": Modality((_CANVAS_SIDE, _CANVAS_SIDE, 1))},
        tasks={task: Task("classification", classes=_DIGITS) for task in ("left", "right")},
        splits=splits,
    )


def _overlap_scans(
    left: Float[np.ndarray, "b s s"], right: Float[np.ndarray, "b s s"], side: int
) -> Float[np.ndarray, "b {side} {side}"]:
    """Overlaps scans at the upper left and the lower right of a canvas, by the maximum."""
    margin = side - left.shape[1]
    return np.maximum(
        np.pad(left, ((0, 0), (0, margin), (0, margin))),
        np.pad(right, ((0, 0), (margin, 0), (margin, 0))),
    )


def _draw_pairs(
    digits: Int[np.ndarray, " n"],
    pool: Int[np.ndarray, " m"],
    size: int,
    split: str,
    rng: np.random.Generator,
) -> Int[np.ndarray, "2 b"]:
    """Draws pairs of scans of different classes from the pool."""
    if size < 1:
        raise ValueError(f"{split} is {size}; a split needs at least 1 example.")
    pairs = rng.choice(pool, (2, size))
    while (same := digits[pairs[0]] == digits[pairs[1]]).any():
        pairs[1, same] = rng.choice(pool, same.sum())
    return pairs


def _make_batch(
    images: Float[np.ndarray, "n s s"],
    digits: Int[np.ndarray, " n"],
    pairs: Int[np.ndarray, "2 b"],
) -> Batch:
    left, right = pairs
    everywhere = np.ones(len(left), bool)
    return Batch(
        inputs={"image": _overlap_scans(images[left], images[right], _CANVAS_SIDE)[..., None]},
        present={"image": everywhere},
        lengths={},
        targets={"left": digits[left].astype(np.int32), "right": digits[right].astype(np.int32)},
        labeled={"left": everywhere, "right": everywhere},
    )
