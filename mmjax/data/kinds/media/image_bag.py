"""Bags of images: any number of images per example."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mmjax.data.dataset import Modality
from mmjax.data.kinds.media.image import Image
from mmjax.data.kinds.protocols import Learned, RowScale
from mmjax.data.limits import MAX_PIXELS


class ImageBagModality(Modality):
    """Images [n, height, width, channels], padded to the largest bag."""

    __slots__ = ()

    def describe(self) -> str:
        """Describes the shape of an example."""
        sizes = " x ".join(map(str, self.shape[1:]))
        return f"up to {self.shape[0]} images of {sizes}"


class ImageBag(NamedTuple):
    """Several images per example: pixels [n, height, width, channels].

    `mmjax.encoders.EachEncoder` encodes every image of a bag by an encoder of images.

    Attributes:
      column: holds the paths: a list of Parquet, or a text with a separator.
      size: (height, width) to resize to; None: all images must have one size.
      channels: as for `Image`.
      fit: as for `Image`.
      bits: as for `Image`.
      separator: between the paths of a text.
      longest: images after this many are left out; None keeps all.
      max_pixels: the largest image that is decoded, by the size that its header declares.

    Example:
      >>> ImageBag("views").matches_cells([["a.png", "b.jpg"], []])
      True
      >>> ImageBag("views").list_files("a.png; b.png")
      ['a.png', 'b.png']
    """

    column: str
    size: tuple[int, int] | None = None
    channels: Literal[1, 3, 4] | None = None
    fit: Literal["resize", "crop", "pad"] = "resize"
    bits: Literal[8, 16] | None = None
    separator: str = ";"
    longest: int | None = None
    max_pixels: int = MAX_PIXELS

    @staticmethod
    def matches_cells(cells: Sequence[Any]) -> bool:
        """Checks whether all cells are lists of names that end like an image file."""
        if not all(isinstance(cell, list) for cell in cells):
            return False
        files = [file for cell in cells for file in cell]
        return bool(files) and Image.matches_cells(files)

    def list_files(self, cell: Any) -> list[str]:
        """Lists the paths that a cell holds."""
        parts = cell if isinstance(cell, list) else str(cell).split(self.separator)
        return [str(part).strip() for part in parts if part is not None and str(part).strip()]

    def learn(self, columns: Sequence[Iterable[Any]], source: Any) -> dict[str, Any]:
        """Finds the bits per pixel, as `Image` does."""
        if not isinstance(source, Path):
            return {}
        files = (file for cell in columns[0] for file in self.list_files(cell))
        return self._make_image().learn([files], source)

    def read_cells(self, cells: Sequence[Any], folder: Path, learned: Learned) -> np.ndarray | None:
        """Decodes the files that a cell names; None if there are none."""
        files, image = self.list_files(cells[0])[: self.longest], self._make_image()
        pixels = [image.read_cells([file], folder, learned) for file in files]
        return _stack_images(pixels, files)

    def read_feature(self, values: Sequence[Any], learned: Learned) -> np.ndarray | None:
        """Resizes and converts the pixels of every image; None if there are none."""
        image, images = self._make_image(), list(values[0])[: self.longest]
        pixels = [image.read_feature([one], learned) for one in images]
        return _stack_images(pixels, [f"image {i}" for i in range(len(pixels))])

    def declare_modality(self, learned: Learned) -> Modality:
        """Returns a sequence of images."""
        return ImageBagModality((), True)

    @staticmethod
    def name_axes(x: np.ndarray, modality: Modality) -> tuple[str, str] | None:
        """Names the axes if the modality is a bag of images."""
        return ("pixel", "pixel") if isinstance(modality, ImageBagModality) else None

    @staticmethod
    def draw(axis: Any, x: np.ndarray, scale: RowScale) -> None:
        """Draws the images side by side."""
        Image.draw(axis, np.concatenate(list(x), axis=1), scale)

    def _make_image(self) -> Image:
        return Image(self.column, self.size, self.channels, self.max_pixels, self.fit, self.bits)


def _stack_images(pixels: Sequence[np.ndarray], names: Sequence[str]) -> np.ndarray | None:
    for array, name in zip(pixels, names, strict=True):
        if array.shape != pixels[0].shape:
            raise ValueError(
                f"{name} has shape {array.shape}, but {pixels[0].shape} at {names[0]}; give the "
                "`ImageBag` a size=(height, width), and channels."
            )
    return np.stack(pixels) if pixels else None
