"""Makes multi-digit pairs from idx files and stores them as TFDS data sets of array records."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8

from mmjax.data.builtin import tfds_builder
from mmjax.data.builtin.download import FASHION_MNIST, MNIST, Originals
from mmjax.data.builtin.idx import read_idx
from mmjax.data.builtin.image_pairs import bilinear, nearest, overlapped, partners
from mmjax.data.builtin.multi_digits_config import CANVAS, CLASSES, IMAGE, MultiDigitsRecipe
from mmjax.data.builtin.tfds_builder import Example

FILES = {"mnist": MNIST, "fashion-mnist": FASHION_MNIST}
SPLITS = ("train", "validation", "test")
CHUNK = 1000  # pairs in memory while they are made


class Labeled(NamedTuple):
    """Images and their classes."""

    images: UInt8[np.ndarray, "n 28 28"]
    classes: UInt8[np.ndarray, " n"]

    def at(self, places: Int[np.ndarray, " m"]) -> "Labeled":
        """Those at these places."""
        return Labeled(self.images[places], self.classes[places])


class MultiDigitsBuilder(tfds_builder.Builder):
    """Two overlapping images; see `mmjax.data.builtin.multi_digits`."""

    VERSION = tfds.core.Version(MultiDigitsRecipe.version)

    def _info(self) -> tfds.core.DatasetInfo:
        recipe = self.recipe
        features = {
            "image": tfds.features.Tensor(
                shape=(IMAGE, IMAGE, 1), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
            ),
            "left": tfds.features.ClassLabel(names=CLASSES[recipe.first]),
            "right": tfds.features.ClassLabel(names=CLASSES[recipe.second]),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), description=__doc__
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Example]]]:
        recipe = self.recipe
        pools = {
            name: split(name, recipe, self.originals) for name in (recipe.first, recipe.second)
        }
        return {
            s: self.numbered(s, self._generate_examples(s, pools), size)
            for s, size in recipe.sizes.items()
        }

    def _generate_examples(
        self, split: str, pools: dict[str, dict[str, Labeled]]
    ) -> Iterator[Example]:
        recipe = self.recipe
        return pairs(pools[recipe.first][split], pools[recipe.second][split], recipe, split)


class MultiMnist(MultiDigitsBuilder):
    """Two handwritten digits."""


class MultiFashion(MultiDigitsBuilder):
    """Two pieces of clothing."""


class FashionMnistPairs(MultiDigitsBuilder):
    """A piece of clothing and a handwritten digit."""


BUILDERS = {b.name: b for b in (MultiMnist, MultiFashion, FashionMnistPairs)}


def split(name: str, recipe: MultiDigitsRecipe, originals: Originals) -> dict[str, Labeled]:
    """The images of each split; the order of the original files is shuffled by the seed.

    Raises:
      ValueError: if the splits want more images than there are.
    """
    sizes = recipe.sizes
    wanted = {"train": sizes["train"] + sizes["validation"], "test": sizes["test"]}
    shuffled = {}
    for part, size in wanted.items():
        images = original(name, part, originals)
        if size > len(images.classes):
            asked = "train + validation" if part == "train" else "test"
            raise ValueError(
                f"{asked} is {size}; {name} has {len(images.classes)} images for {part}."
            )
        rng = np.random.default_rng([recipe.seed, SPLITS.index(part)])
        shuffled[part] = images.at(rng.permutation(len(images.classes))[:size])
    places = np.split(np.arange(wanted["train"]), [sizes["train"]])
    train, validation = (shuffled["train"].at(p) for p in places)
    return {"train": train, "validation": validation, "test": shuffled["test"]}


def original(name: str, part: str, originals: Originals) -> Labeled:
    """All images of an original file, with their classes.

    Raises:
      ValueError: if the files do not hold images of 28x28 and as many classes from 0 to 9.
    """
    files = {kind: originals.find(FILES[name][f"{part}-{kind}"]) for kind in ("images", "labels")}
    images = read_idx(files["images"], shape=(None, IMAGE, IMAGE))
    classes = read_idx(files["labels"], shape=(len(images),))
    for kind, values in (("images", images), ("labels", classes)):
        if values.dtype != np.uint8:
            raise ValueError(f"{files[kind]}: its values are {values.dtype}; they must be uint8.")
    if len(classes) and classes.max() >= len(CLASSES[name]):
        row = int(np.argmax(classes >= len(CLASSES[name])))
        raise ValueError(
            f"{files['labels']}: label {row} is {classes[row]}; it must be 0 to "
            f"{len(CLASSES[name]) - 1}."
        )
    return Labeled(images, classes)


def pairs(
    first: Labeled, second: Labeled, recipe: MultiDigitsRecipe, split: str
) -> Iterator[Example]:
    """The pairs of a split: each of `first` with a partner drawn from `second`."""
    rng = np.random.default_rng([recipe.seed, 10 + SPLITS.index(split)])
    free = recipe.pairing.same_class or recipe.first != recipe.second
    chosen = partners(first.classes, second.classes, rng, same_class=free)
    resized = {"nearest": nearest, "bilinear": bilinear}[recipe.pairing.resize]
    for start in range(0, len(chosen), CHUNK):
        one = Labeled(*(part[start : start + CHUNK] for part in first))
        two = second.at(chosen[start : start + CHUNK])
        canvas = overlapped(one.images, two.images, recipe.pairing.offset, CANVAS)
        for image, left, right in zip(
            resized(canvas, IMAGE), one.classes, two.classes, strict=True
        ):
            yield {"image": image[:, :, None], "left": int(left), "right": int(right)}
