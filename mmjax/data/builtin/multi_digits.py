"""Multi-digit pairs: two overlapping images on one canvas, to be classified by position.

MultiMNIST (Sabour et al. 2017, "Dynamic Routing Between Capsules"; with two tasks: Sener and
Koltun 2018, "Multi-Task Learning as Multi-Objective Optimization"), MultiFashion, and Fashion-MNIST
with MNIST (Lin et al. 2019, "Pareto Multi-Task Learning").

Published code differs in how pairs are made, and results on different pairs are not comparable.
Here:

- Train and validation share out the 60,000 original training images; test uses the other 10,000.
- Every image of a split is the first of exactly one pair. Its partner is drawn, with replacement,
  among the images of the same split that have another class. Sener and Koltun draw partners of any
  class, and without a seed; Sabour et al. make a thousand pairs per image.
- The canvas is 36x36; the second image is 8 pixels lower and to the right of the first. Sener and
  Koltun have 6, which leaves the last two rows and columns of the canvas empty.
- Overlapping pixels take the maximum.
- The canvas is resized to 28x28 by the nearest pixel, as in Sener and Koltun.

`Pairing` changes the offset, the classes and the filter.
"""

import os

import numpy as np
from jaxtyping import Int, UInt8

from mmjax.data.builtin.array_cache import Example, load_or_build_arrays
from mmjax.data.builtin.multi_digits_config import (
    CLASS_NAMES,
    IMAGE_SIDE,
    MultiDigitsConfig,
    Pairing,
)
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.types import Batch

_PathLike = str | os.PathLike[str]
_DEFAULT_PAIRING = Pairing()


def multi_mnist(
    *,
    seed: int = 0,
    train: int = 50_000,
    validation: int = 10_000,
    test: int = 10_000,
    pairing: Pairing = _DEFAULT_PAIRING,
    manual_dir: _PathLike | None = None,
    data_dir: _PathLike | None = None,
) -> Dataset:
    """Returns pairs of handwritten digits, which the first call prepares in `data_dir`.

    Modality `image`, 28x28x1, 8 bits. Tasks `left` and `right`: the digit at the upper left and the
    one at the lower right.

    Args:
      seed: random seed of the split into train and validation, and of the pairs.
      train: number of training pairs; the default is that of the protocol, here and below.
      validation: number of validation pairs; with those of train at most 60,000.
      test: number of test pairs, at most 10,000.
      pairing: how two images are combined.
      manual_dir: folder with the original idx files, in `mnist` or directly; None downloads them.
      data_dir: folder of TFDS data sets; None is TFDS's default.

    Raises:
      FileNotFoundError: if `manual_dir` lacks a file.
      ValueError: if a size, the seed or an original file is wrong.
    """
    sizes = {"train": train, "validation": validation, "test": test}
    return _make_dataset(
        "multi_mnist", "mnist", "mnist", seed, sizes, pairing, manual_dir, data_dir
    )


def multi_fashion(
    *,
    seed: int = 0,
    train: int = 50_000,
    validation: int = 10_000,
    test: int = 10_000,
    pairing: Pairing = _DEFAULT_PAIRING,
    manual_dir: _PathLike | None = None,
    data_dir: _PathLike | None = None,
) -> Dataset:
    """Returns pairs of Fashion-MNIST's pieces of clothing; otherwise as `multi_mnist`.

    The original files are in the folder `fashion-mnist` of `manual_dir`, or directly in it.
    """
    sizes = {"train": train, "validation": validation, "test": test}
    fashion = "fashion-mnist"
    return _make_dataset(
        "multi_fashion", fashion, fashion, seed, sizes, pairing, manual_dir, data_dir
    )


def fashion_mnist_pairs(
    *,
    seed: int = 0,
    train: int = 50_000,
    validation: int = 10_000,
    test: int = 10_000,
    pairing: Pairing = _DEFAULT_PAIRING,
    manual_dir: _PathLike | None = None,
    data_dir: _PathLike | None = None,
) -> Dataset:
    """Returns pairs of a piece of clothing and a digit; otherwise as `multi_mnist`.

    Any digit may be the partner of any piece of clothing, since their classes differ. The
    original files are in the folders `fashion-mnist` and `mnist` of `manual_dir`.
    """
    sizes = {"train": train, "validation": validation, "test": test}
    name, first, second = "fashion_mnist_pairs", "fashion-mnist", "mnist"
    return _make_dataset(name, first, second, seed, sizes, pairing, manual_dir, data_dir)


def _make_dataset(
    name: str,
    first: str,
    second: str,
    seed: int,
    sizes: dict[str, int],
    pairing: Pairing,
    manual_dir: _PathLike | None,
    data_dir: _PathLike | None,
) -> Dataset:
    recipe = MultiDigitsConfig(
        dataset=name, seed=seed, sizes=sizes, first=first, second=second, pairing=pairing
    )

    def read() -> dict[str, Example]:
        from mmjax.data.builtin.multi_digits_builder import BUILDERS
        from mmjax.data.builtin.tfds_builder import load_or_prepare_arrays

        return load_or_prepare_arrays(BUILDERS[name], recipe, data_dir, manual_dir)

    arrays = load_or_build_arrays(recipe, data_dir, read)
    classes = {"left": CLASS_NAMES[first], "right": CLASS_NAMES[second]}
    return Dataset(
        name=name,
        modalities={"image": Modality((IMAGE_SIDE, IMAGE_SIDE, 1))},
        tasks={task: Task("classification", classes=names) for task, names in classes.items()},
        splits={split: Arrays(_make_batch(**parts)) for split, parts in arrays.items()},
    )


def _make_batch(
    image: UInt8[np.ndarray, "b h w 1"], left: Int[np.ndarray, " b"], right: Int[np.ndarray, " b"]
) -> Batch:
    everywhere = np.ones(len(image), bool)
    return Batch(
        inputs={"image": image},
        present={"image": everywhere},
        lengths={},
        targets={"left": left.astype(np.int32), "right": right.astype(np.int32)},
        labeled={"left": everywhere, "right": everywhere},
    )
