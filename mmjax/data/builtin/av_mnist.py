"""av_mnist: a digit as a picture with most of its energy gone, and as a word spoken in noise.

Images are MNIST's (LeCun, Cortes and Burges), speech is the Free Spoken Digit Dataset's (Jackson et
al.), paired by class as in Vielzeuf et al. 2018 ("CentralNet") and MultiBench (Liang et al. 2021).
The copy that circulates cannot be made again; this one can: every choice is an argument. Tasks are
the digit and the speaker. No picture and no recording of one split occurs in another.
"""

import os
from typing import Literal

import numpy as np

from mmjax.data.audio.spectrogram import Spectrogram
from mmjax.data.builtin.array_cache import Example, kept
from mmjax.data.builtin.av_mnist_config import DIGITS, SPEAKERS, AvMnistRecipe, Noise
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.types import Batch

_DEFAULT_NOISE = Noise()
SPECTROGRAM = Spectrogram()


def av_mnist(
    *,
    seed: int = 0,
    train: int = 55_000,
    validation: int = 5_000,
    test: int = 10_000,
    energy_removed: float = 0.75,
    noise: Noise = _DEFAULT_NOISE,
    spectrogram: Spectrogram = SPECTROGRAM,
    split_by: Literal["take", "speaker"] = "take",
    skip_damaged: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """The data set, prepared at the first call and read from `data_dir` ever after.

    Inputs, both in 8 bits: `image` 28x28x1, and `audio` frames x mels x 1. Training and validation
    images come from MNIST's training file, in an order drawn from the seed; test images are the
    first of its test file. The default sizes are MultiBench's.

    Args:
      seed: of the split of the training file, of the pairs, of the noise and its time; the same
        seed gives the same files, byte for byte.
      train: number of training examples.
      validation: number of validation examples.
      test: number of test examples.
      energy_removed: share of the images' variance that goes: they keep only as many of the
        strongest principal components of the training images as hold the rest, 4 by default, and
        the mean.
      noise: what the words are spoken in.
      spectrogram: how a sound becomes a picture; the default cuts one recording in a hundred, at
        its end.
      split_by: "take": every speaker is in all splits, in takes 0 to 4 in test, which is the
        recordings' own convention, 5 to 9 in validation and the others in training. "speaker": one
        speaker, drawn from the seed, is in test, one in validation, four are in training; there is
        then no task `speaker`, since nobody can name a voice never heard before.
      skip_damaged: whether to leave damaged recordings out, and say how many, instead of refusing
        them.
      data_dir: folder of TFDS data sets; None is TFDS's own default.
      manual_dir: folder with the original files, such as mnist/train-images-idx3-ubyte.gz and
        fsdd/recordings.zip; None is to download them.

    Raises:
      ConnectionError: if an original file cannot be downloaded.
      FileNotFoundError: if an original file is not in `manual_dir`.
      ValueError: if an argument is out of range or an original file is damaged.
    """
    recipe = AvMnistRecipe(
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
        from mmjax.data.builtin.tfds_builder import stored

        return stored(AvMnist, recipe, data_dir, manual_dir)

    arrays = kept(recipe, data_dir, read)
    splits = {split: Arrays(_batch(part, tasks)) for split, part in arrays.items()}
    return Dataset("av_mnist", {"image": Modality((28, 28, 1)), "audio": audio}, tasks, splits)


def _batch(arrays: dict[str, np.ndarray], tasks: dict[str, Task]) -> Batch:
    everywhere = np.ones(len(arrays["image"]), bool)
    return Batch(
        inputs={"image": arrays["image"], "audio": arrays["audio"]},
        present={"image": everywhere, "audio": everywhere},
        lengths={},
        targets={task: arrays[task].astype(np.int32) for task in tasks},
        labeled=dict.fromkeys(tasks, everywhere),
    )
