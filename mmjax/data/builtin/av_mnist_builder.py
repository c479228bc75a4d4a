"""Makes the examples of av_mnist and stores them as a TFDS data set of array records."""

import dataclasses
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8

from mmjax.data.audio.noise import mix_with_noise
from mmjax.data.builtin import tfds_builder
from mmjax.data.builtin.av_mnist_config import DIGITS, SPEAKERS, AvMnistConfig
from mmjax.data.builtin.originals.download import FSDD_ARCHIVE, MNIST_FILES
from mmjax.data.builtin.originals.fsdd import SAMPLE_RATE, Clip, read_fsdd
from mmjax.data.builtin.originals.idx import read_idx
from mmjax.data.builtin.pca import fit_components, project_onto_components
from mmjax.data.builtin.tfds_builder import Example
from mmjax.printing.console import print_text

_SPLITS = ("train", "validation", "test")
_TAKES = {"test": range(5), "validation": range(5, 10)}  # the others are for training
_PIXELS = 28 * 28


class _Images(NamedTuple):
    """The flattened images of a split, with their rows in MNIST's file and their digits."""

    rows: Int[np.ndarray, " n"]
    images: UInt8[np.ndarray, "n 784"]
    digits: UInt8[np.ndarray, " n"]


class AvMnist(tfds_builder.Builder):
    """Digits as images and as speech; see `mmjax.data.builtin.av_mnist`."""

    VERSION = tfds.core.Version(AvMnistConfig.version)

    def _info(self) -> tfds.core.DatasetInfo:
        spectrogram = self.recipe.spectrogram
        features = {
            "image": _make_bytes_feature(28, 28, 1),
            "audio": _make_bytes_feature(spectrogram.frames, spectrogram.mels, 1),
            "digit": tfds.features.ClassLabel(names=DIGITS),
            "speaker": tfds.features.ClassLabel(names=SPEAKERS),
            "row": np.int32,  # in MNIST's file
            "take": np.int32,
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            description=__doc__,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Example]]]:
        recipe = self.recipe
        paths = {part: self.originals.find(original) for part, original in MNIST_FILES.items()}
        files = {}
        for part, path in paths.items():
            shape = (None, 28, 28) if part.endswith("images") else (None,)
            files[part] = read_idx(path, shape=shape)
        for part in ("train", "test"):
            _check_labels(files, part, paths)
        pictures = _reduce_images(files, recipe)
        clips, damaged = read_fsdd(
            self.originals.find(FSDD_ARCHIVE), skip_damaged=recipe.skip_damaged
        )
        if damaged:
            message = "\n  ".join([f"{len(damaged)} damaged recordings left out:", *damaged])
            print_text(message, file=sys.stderr)
        pools = _group_clips_by_split(clips, recipe)
        generators = {}
        for split, size in recipe.sizes.items():
            examples = self._generate_examples(split, pictures[split], pools[split])
            generators[split] = self.numbered(split, examples, size)
        return generators

    def _generate_examples(
        self, split: str, pictures: _Images, pool: list[Clip]
    ) -> Iterator[Example]:
        recipe = self.recipe
        spectrogram, length = recipe.spectrogram, recipe.spectrogram.samples(SAMPLE_RATE)
        background = dataclasses.asdict(recipe.noise)
        clips_of_digit: list[list[Clip]] = [[] for _ in range(10)]
        for clip in pool:
            clips_of_digit[clip.digit].append(clip)
        others = [clip.samples for clip in pool]
        for index, (row, image, digit) in enumerate(zip(*pictures, strict=True)):
            # One generator per example, so that none depends on the number of others.
            rng = np.random.default_rng([recipe.seed, _SPLITS.index(split), index])
            clips = clips_of_digit[digit]
            clip = clips[rng.integers(len(clips))]
            sound = mix_with_noise(clip.samples, length, rng, others=others, **background)
            yield {
                "image": image.reshape(28, 28, 1),
                "audio": spectrogram(sound, SAMPLE_RATE),
                "digit": int(digit),
                "speaker": clip.speaker,
                "row": row,
                "take": clip.take,
            }


def _make_bytes_feature(*shape: int) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)


def _check_labels(files: dict[str, np.ndarray], part: str, paths: dict[str, Any]) -> None:
    """Refuses images without a label, and labels that are not a digit."""
    images, labels = files[f"{part}-images"], files[f"{part}-labels"]
    if len(images) != len(labels):
        raise ValueError(
            f"{paths[f'{part}-images']} has {len(images)} images and "
            f"{paths[f'{part}-labels']} {len(labels)} labels; the numbers must be equal."
        )
    if labels.max(initial=0) > 9:
        row = int(np.argmax(labels > 9))
        raise ValueError(
            f"{paths[f'{part}-labels']}: label {row} is {labels[row]}; it must be 0 to 9."
        )


def _reduce_images(files: dict[str, np.ndarray], recipe: AvMnistConfig) -> dict[str, _Images]:
    """Returns the images of each split, with most of their energy removed."""
    chosen = _choose_rows(len(files["train-images"]), len(files["test-images"]), recipe)
    flat = {part: files[f"{part}-images"].reshape(-1, _PIXELS) for part in ("train", "test")}
    # Fitted on the training images alone; the other splits are projected on the same components.
    components = fit_components(flat["train"][chosen["train"]], recipe.energy_removed)
    images_of_split = {}
    for split, rows in chosen.items():
        part = "test" if split == "test" else "train"
        images, digits = (
            project_onto_components(flat[part][rows], components),
            files[f"{part}-labels"][rows],
        )
        images_of_split[split] = _Images(rows, images, digits)
    return images_of_split


def _choose_rows(train: int, test: int, recipe: AvMnistConfig) -> dict[str, Int[np.ndarray, " _"]]:
    """Chooses rows of the training file in random order, and the first rows of the test file."""
    sizes = recipe.sizes
    if sizes["train"] + sizes["validation"] > train:
        raise ValueError(
            f"train + validation is {sizes['train'] + sizes['validation']}; MNIST's training file "
            f"has {train} images."
        )
    if sizes["test"] > test:
        raise ValueError(f"test is {sizes['test']}; MNIST's test file has {test} images.")
    order = np.random.default_rng(recipe.seed).permutation(train)
    ends = np.cumsum([sizes["train"], sizes["validation"]])
    first, second, _ = np.split(order, ends)
    return {"train": first, "validation": second, "test": np.arange(sizes["test"])}


def _group_clips_by_split(clips: list[Clip], recipe: AvMnistConfig) -> dict[str, list[Clip]]:
    """Returns the recordings of each split."""
    unknown = {clip.speaker for clip in clips} - set(SPEAKERS)
    if unknown:
        raise ValueError(
            f"The recordings have the speaker {min(unknown)!r}; speakers must be "
            f"{', '.join(SPEAKERS)}."
        )
    # A stream of its own, since the seed alone draws the order of the images.
    order = np.random.default_rng([recipe.seed, 1]).permutation(SPEAKERS).tolist()
    speakers = {order[0]: "test", order[1]: "validation"}
    split_of_take = {take: split for split, takes in _TAKES.items() for take in takes}
    pools: dict[str, list[Clip]] = {split: [] for split in _SPLITS}
    for clip in clips:
        by_take = split_of_take.get(clip.take, "train")
        by_speaker = speakers.get(clip.speaker, "train")
        pools[by_take if recipe.split_by == "take" else by_speaker].append(clip)
    for split, pool in pools.items():
        missing = set(range(10)) - {clip.digit for clip in pool}
        if missing:
            raise ValueError(f"Split {split!r} has no recording of the digit {min(missing)}.")
    return pools
