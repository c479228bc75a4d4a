"""Makes multi-digit pairs from idx files and stores them as TFDS data sets of array records."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8

from mmjax.data.builtin import tfds_builder
from mmjax.data.builtin.image_pairs import (
    draw_partners,
    overlap_images,
    resize_bilinear,
    resize_nearest,
)
from mmjax.data.builtin.multi_digits_config import (
    CANVAS_SIDE,
    CLASS_NAMES,
    IMAGE_SIDE,
    MultiDigitsConfig,
)
from mmjax.data.builtin.originals.download import FASHION_MNIST_FILES, MNIST_FILES, OriginalFiles
from mmjax.data.builtin.originals.idx import read_idx
from mmjax.data.builtin.tfds_builder import Example

_FILES = {"mnist": MNIST_FILES, "fashion-mnist": FASHION_MNIST_FILES}
_SPLITS = ("train", "validation", "test")
_CHUNK_PAIRS = 1000  # pairs in memory while they are made


class LabeledImages(NamedTuple):
    """Images and their classes."""

    images: UInt8[np.ndarray, "n 28 28"]
    classes: UInt8[np.ndarray, " n"]

    def take(self, rows: Int[np.ndarray, " m"]) -> "LabeledImages":
        """Returns the images at `rows`, in that order."""
        return LabeledImages(self.images[rows], self.classes[rows])


class MultiDigitsBuilder(tfds_builder.Builder):
    """Two overlapping images; see `mmjax.data.builtin.multi_digits`."""

    VERSION = tfds.core.Version(MultiDigitsConfig.version)

    def _info(self) -> tfds.core.DatasetInfo:
        recipe = self.recipe
        features = {
            "image": tfds.features.Tensor(
                shape=(IMAGE_SIDE, IMAGE_SIDE, 1),
                dtype=np.uint8,
                encoding=tfds.features.Encoding.BYTES,
            ),
            "left": tfds.features.ClassLabel(names=CLASS_NAMES[recipe.first]),
            "right": tfds.features.ClassLabel(names=CLASS_NAMES[recipe.second]),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), description=__doc__
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Example]]]:
        recipe = self.recipe
        names = (recipe.first, recipe.second)
        pools = {name: _split_images(name, recipe, self.originals) for name in names}
        generators = {}
        for part, size in recipe.sizes.items():
            generators[part] = self.numbered(part, self._generate_examples(part, pools), size)
        return generators

    def _generate_examples(
        self, part: str, pools: dict[str, dict[str, LabeledImages]]
    ) -> Iterator[Example]:
        recipe = self.recipe
        return _make_pairs(pools[recipe.first][part], pools[recipe.second][part], recipe, part)


class MultiMnist(MultiDigitsBuilder):
    """Two handwritten digits."""


class MultiFashion(MultiDigitsBuilder):
    """Two pieces of clothing."""


class FashionMnistPairs(MultiDigitsBuilder):
    """A piece of clothing and a handwritten digit."""


BUILDERS = {b.name: b for b in (MultiMnist, MultiFashion, FashionMnistPairs)}


def _split_images(
    name: str, recipe: MultiDigitsConfig, originals: OriginalFiles
) -> dict[str, LabeledImages]:
    """Splits the images of the original files, in an order shuffled by the seed.

    Raises:
      ValueError: if the splits need more images than there are.
    """
    sizes = recipe.sizes
    needed = {"train": sizes["train"] + sizes["validation"], "test": sizes["test"]}
    shuffled = {}
    for part, size in needed.items():
        images = read_original_images(name, part, originals)
        if size > len(images.classes):
            argument = "train + validation" if part == "train" else "test"
            raise ValueError(
                f"{argument} is {size}; {name} has {len(images.classes)} images for {part}."
            )
        rng = np.random.default_rng([recipe.seed, _SPLITS.index(part)])
        shuffled[part] = images.take(rng.permutation(len(images.classes))[:size])
    rows = np.arange(needed["train"])
    train = shuffled["train"].take(rows[: sizes["train"]])
    validation = shuffled["train"].take(rows[sizes["train"] :])
    return {"train": train, "validation": validation, "test": shuffled["test"]}


def read_original_images(name: str, part: str, originals: OriginalFiles) -> LabeledImages:
    """Reads all images of an original file, with their classes.

    Raises:
      ValueError: if the files do not hold 28x28 images and one class from 0 to 9 per image.
    """
    files = {kind: originals.find(_FILES[name][f"{part}-{kind}"]) for kind in ("images", "labels")}
    images = read_idx(files["images"], shape=(None, IMAGE_SIDE, IMAGE_SIDE))
    classes = read_idx(files["labels"], shape=(len(images),))
    for kind, values in (("images", images), ("labels", classes)):
        if values.dtype != np.uint8:
            raise ValueError(f"{files[kind]}: its values are {values.dtype}; they must be uint8.")
    if len(classes) and classes.max() >= len(CLASS_NAMES[name]):
        row = int(np.argmax(classes >= len(CLASS_NAMES[name])))
        raise ValueError(
            f"{files['labels']}: label {row} is {classes[row]}; it must be 0 to "
            f"{len(CLASS_NAMES[name]) - 1}."
        )
    return LabeledImages(images, classes)


def _make_pairs(
    first: LabeledImages, second: LabeledImages, recipe: MultiDigitsConfig, split: str
) -> Iterator[Example]:
    """Yields the pairs of a split: each image of `first` with a partner drawn from `second`."""
    rng = np.random.default_rng([recipe.seed, 10 + _SPLITS.index(split)])
    any_class = recipe.pairing.same_class or recipe.first != recipe.second
    chosen = draw_partners(first.classes, second.classes, rng, same_class=any_class)
    resize = {"nearest": resize_nearest, "bilinear": resize_bilinear}[recipe.pairing.resize]
    for start in range(0, len(chosen), _CHUNK_PAIRS):
        firsts = first.take(np.arange(start, min(start + _CHUNK_PAIRS, len(chosen))))
        seconds = second.take(chosen[start : start + _CHUNK_PAIRS])
        canvas = overlap_images(firsts.images, seconds.images, recipe.pairing.offset, CANVAS_SIDE)
        images = resize(canvas, IMAGE_SIDE)
        for image, left, right in zip(images, firsts.classes, seconds.classes, strict=True):
            yield {"image": image[:, :, None], "left": int(left), "right": int(right)}
