"""av_mnist: a digit as an image with most of its energy removed, and as a word spoken in noise.

Images are those of MNIST (LeCun, Cortes and Burges), speech is from the Free Spoken Digit Dataset
(Jackson et al.), paired by class as in Vielzeuf et al. 2018 ("CentralNet") and MultiBench (Liang et
al. 2021). The published copy cannot be reproduced; this one can, since every choice is an argument.
Tasks are the digit and the speaker. No image and no recording of one split occurs in another.

Training and validation images come from MNIST's training file, in an order drawn from the seed;
test images are the first of its test file. The default sizes are MultiBench's. Images keep their
mean and only as many of the strongest principal components of the training images as hold the
variance that is not removed, 4 by default.

Split by "take", every speaker is in all splits, with takes 0 to 4 in test, which is the convention
of the recordings, 5 to 9 in validation and the others in training. Split by "speaker", one speaker,
drawn from the seed, is in test, one in validation, four are in training; there is then no task
`speaker`, since a model cannot name a voice that is not in training.
"""

import os
from typing import Literal

import numpy as np

from mmjax.data.audio.spectrogram import Spectrogram
from mmjax.data.builtin.array_cache import Example, load_or_build_arrays
from mmjax.data.builtin.av_mnist_config import DIGITS, SPEAKERS, AvMnistConfig, Noise
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.types import Batch

_DEFAULT_NOISE = Noise()
_DEFAULT_SPECTROGRAM = Spectrogram()


def av_mnist(
    *,
    seed: int = 0,
    train: int = 55_000,
    validation: int = 5_000,
    test: int = 10_000,
    energy_removed: float = 0.75,
    noise: Noise = _DEFAULT_NOISE,
    spectrogram: Spectrogram = _DEFAULT_SPECTROGRAM,
    split_by: Literal["take", "speaker"] = "take",
    skip_damaged: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Returns the data set, which the first call prepares in `data_dir` for all later calls.

    Inputs, both in 8 bits: `image` 28x28x1, and `audio` frames x mels x 1.

    Args:
      seed: of splits, pairs, and noise; the same seed gives the same files, byte for byte.
      train: number of training examples.
      validation: number of validation examples.
      test: number of test examples.
      energy_removed: share of the images' variance that is removed.
      noise: the noise behind the words.
      spectrogram: settings; the default cuts off the end of one recording in a hundred.
      split_by: "take" or "speaker": what the splits do not share, see the module.
      skip_damaged: whether damaged recordings are left out, and counted, instead of refused.
      data_dir: folder of TFDS data sets; None is TFDS's default.
      manual_dir: folder with the original files, such as mnist/train-images-idx3-ubyte.gz and
        fsdd/recordings.zip; None downloads them.

    Raises:
      ConnectionError: if an original file cannot be downloaded.
      FileNotFoundError: if an original file is not in `manual_dir`.
      ValueError: if an argument is out of range or an original file is damaged.
    """
    recipe = AvMnistConfig(
        seed=seed,
        sizes={"train": train, "validation": validation, "test": test},
        energy_removed=energy_removed,
        noise=noise,
        spectrogram=spectrogram,
        split_by=split_by,
        skip_damaged=skip_damaged,
    )
    tasks = {"digit": Task("classification", classes=DIGITS)}
    if split_by == "take":
        tasks["speaker"] = Task("classification", classes=SPEAKERS)
    audio = Modality((spectrogram.frames, spectrogram.mels, 1))

    def read() -> dict[str, Example]:
        from mmjax.data.builtin.av_mnist_builder import AvMnist
        from mmjax.data.builtin.tfds_builder import load_or_prepare_arrays

        return load_or_prepare_arrays(AvMnist, recipe, data_dir, manual_dir)

    arrays = load_or_build_arrays(recipe, data_dir, read)
    splits = {split: Arrays(_make_batch(part, tasks)) for split, part in arrays.items()}
    return Dataset("av_mnist", {"image": Modality((28, 28, 1)), "audio": audio}, tasks, splits)


def _make_batch(arrays: dict[str, np.ndarray], tasks: dict[str, Task]) -> Batch:
    everywhere = np.ones(len(arrays["image"]), bool)
    return Batch(
        inputs={"image": arrays["image"], "audio": arrays["audio"]},
        present={"image": everywhere, "audio": everywhere},
        lengths={},
        targets={task: arrays[task].astype(np.int32) for task in tasks},
        labeled=dict.fromkeys(tasks, everywhere),
    )
