"""polyglot_digits: a digit as handwriting, as speech and as text, in eight languages.

The scans are real (those of scikit-learn, 8x8); the speech is synthesized by eSpeak NG; the text is
the number's word with typing errors. Tasks are the digit, the language and the speaking rate. No
scan and no voice of one split occurs in another.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.data.builtin.array_cache import Example, load_or_build_arrays
from mmjax.data.builtin.polyglot_digits_config import (
    MODALITIES,
    TASKS,
    Noise,
    PolyglotDigitsConfig,
)
from mmjax.data.dataset import Arrays, Dataset
from mmjax.masks import make_length_mask, pad_ragged
from mmjax.types import Batch

_DEFAULT_NOISE = Noise()


def polyglot_digits(
    *,
    seed: int = 0,
    train: int = 9216,
    validation: int = 512,
    test: int = 1024,
    missing_modalities: float = 0.1,
    missing_labels: float = 0.1,
    missing_in_evaluation: float = 0.0,
    noise: Noise = _DEFAULT_NOISE,
    data_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Returns the data set, which the first call prepares in `data_dir` for all later calls.

    Inputs: `image` 8x8x1 in 0 to 1; `speech` log-mel frames, 20 ms apart, with mean 0 and standard
    deviation 1 in each of 24 bands over the training split; `text` UTF-8 bytes plus 1, since 0 is
    padding.

    Args:
      seed: random seed of the generation; the same seed gives the same files, byte for byte.
      train: number of training examples.
      validation: number of validation examples.
      test: number of test examples.
      missing_modalities: share of a training example's modalities that are missing; no example
        lacks all.
      missing_labels: share of a training example's labels that are missing.
      missing_in_evaluation: share of both that is missing in validation and test.
      noise: levels of the noise in each modality.
      data_dir: folder of TFDS data sets; None is TFDS's default.

    Raises:
      ImportError: if the packages that generate the data are not installed.
      ValueError: if a size or a share is out of range.
    """
    recipe = PolyglotDigitsConfig(
        seed=seed,
        sizes={"train": train, "validation": validation, "test": test},
        missing_modalities=missing_modalities,
        missing_labels=missing_labels,
        missing_in_evaluation=missing_in_evaluation,
        noise=noise,
    )

    def read() -> dict[str, Example]:
        from mmjax.data.builtin.polyglot_digits_builder import PolyglotDigits
        from mmjax.data.builtin.tfds_builder import load_or_prepare_arrays

        return load_or_prepare_arrays(PolyglotDigits, recipe, data_dir)

    batches = {
        split: _make_batch(part)
        for split, part in load_or_build_arrays(recipe, data_dir, read).items()
    }
    splits = {split: Arrays(batch) for split, batch in _standardize_speech(batches).items()}
    return Dataset("polyglot_digits", MODALITIES, TASKS, splits)


def _make_batch(stored: Mapping[str, Mapping[str, Any]]) -> Batch:
    """Makes a batch of a stored split, which holds bytes and sequences of different lengths."""
    inputs = stored["inputs"]
    lengths = {m: np.array(list(map(len, inputs[m])), np.int32) for m in ("speech", "text")}
    text = pad_ragged(inputs["text"], MODALITIES["text"].shape, np.int32)
    types = {t: np.int32 if task.classes else np.float32 for t, task in TASKS.items()}
    return Batch(
        inputs={
            "image": inputs["image"].astype(np.float32) / 255,
            "speech": pad_ragged(inputs["speech"], MODALITIES["speech"].shape, np.float32),
            "text": (text + 1) * make_length_mask(lengths["text"], text.shape[1]),
        },
        present=dict(stored["present"]),
        lengths=lengths,
        targets={t: stored["targets"][t].astype(dtype) for t, dtype in types.items()},
        labeled=dict(stored["labeled"]),
    )


def _standardize_speech(batches: dict[str, Batch]) -> dict[str, Batch]:
    """Gives each band of speech mean 0 and standard deviation 1 over the training frames."""
    # Large arrays are changed in place: touching fresh memory takes longer than the arithmetic.
    train, (steps, _) = batches["train"], MODALITIES["speech"].shape
    frames = train.inputs["speech"][make_length_mask(train.lengths["speech"], steps)]
    mean = frames.mean(axis=0)
    frames -= mean
    np.square(frames, out=frames)
    deviation = np.maximum(np.sqrt(frames.mean(axis=0)), 1e-6)
    # Repeated per time step, since NumPy is slow where it broadcasts a short last axis.
    means, deviations = np.tile(mean, (steps, 1)), np.tile(deviation, (steps, 1))
    for batch in batches.values():
        speech = batch.inputs["speech"]
        speech -= means
        speech /= deviations
        speech *= make_length_mask(batch.lengths["speech"], steps)[:, :, None]
    return batches
