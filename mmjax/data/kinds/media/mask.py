"""Segmentation masks: the class of every pixel, from the pixels of an image file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from mmjax.data.dataset import Task
from mmjax.data.limits import MAX_PIXELS
from mmjax.data.load.decode import UnreadableError
from mmjax.data.load.image_files import open_image

_LOSSY_FORMATS = ("JPEG", "JPEG2000")


class Mask(NamedTuple):
    """The class of every pixel, as the gray level or the palette's index in an image file.

    Attributes:
      column: holds the path to a PNG, TIFF, BMP or GIF file; JPEG and JPEG 2000, which may have
        changed the levels, are refused.
      classes: names of the classes: level 0 is the first.
      size: (height, width) to resize to, by the nearest pixel; None: all must have one size.
      ignore: level of a pixel without a label; None: every pixel has one.
      max_pixels: the largest mask that is decoded, by the size that its header declares.

    Example:
      >>> Mask("mask", ("sky", "road")).declare_task().kind
      'segmentation'
    """

    column: str
    classes: tuple[str, ...]
    size: tuple[int, int] | None = None
    ignore: int | None = 255
    max_pixels: int = MAX_PIXELS

    def read_cells(self, cells: Sequence[Any], folder: Path) -> Int[np.ndarray, "h w"]:
        """Decodes the mask whose file name is in the cell; -1 means unlabeled."""
        path = folder / str(cells[0])
        levels = read_levels(path, self.size, self.max_pixels)
        return self._check_levels(levels, str(path))

    def read_feature(self, values: Sequence[Any]) -> Int[np.ndarray, "h w"]:
        """Converts an image [h w 1] or [h w] of whole numbers."""
        levels = np.asarray(values[0])
        levels = levels[..., 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels
        return self._check_levels(levels, "the mask")

    def declare_task(self) -> Task:
        """Returns the segmentation; its shape is measured."""
        return Task("segmentation", tuple(self.classes))

    def _check_levels(self, levels: np.ndarray, what: str) -> Int[np.ndarray, "h w"]:
        if levels.ndim != 2:
            raise ValueError(f"{what} has the shape {levels.shape}; a mask needs [height, width].")
        mask = levels.astype(np.int32)
        if self.ignore is not None:
            mask = np.where(mask == self.ignore, np.int32(-1), mask)
        bad = mask[(mask < -1) | (mask >= len(self.classes))]
        if bad.size:
            raise ValueError(
                f"{what} has the level {bad[0]}, but {len(self.classes)} classes; give all classes "
                "in the order of the levels, or the level of pixels without a label as ignore."
            )
        return mask


def read_levels(path: Path, size: tuple[int, int] | None, max_pixels: int) -> np.ndarray:
    """Reads gray levels or indices of a palette."""
    import PIL.Image

    picture, _, name = open_image(path, max_pixels)
    if name in _LOSSY_FORMATS:
        raise UnreadableError(
            f"{path} is a {name} file, which may have changed the levels; store it as PNG."
        )
    if picture.mode not in ("1", "L", "P") and not picture.mode.startswith("I"):
        raise UnreadableError(
            f"{path} has colors ({picture.mode}); store the mask as gray levels or with a palette."
        )
    if size is not None:
        picture = picture.resize(size[::-1], PIL.Image.Resampling.NEAREST)
    return np.asarray(picture)
