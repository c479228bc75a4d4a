"""Images: pixels of image files."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt

from mmjax.data.dataset import Modality
from mmjax.data.kinds.protocols import Learned, RowScale
from mmjax.data.limits import MAX_PIXELS
from mmjax.data.load.decode import UnreadableError, list_suffixes
from mmjax.data.load.image_files import (
    CHANNELS,
    IMAGE_SUFFIXES,
    convert_picture,
    open_image,
    picture_to_pixels,
    pixels_to_picture,
    resize_picture,
)


class Image(NamedTuple):
    """Pixels as a viewer shows them: uint8, or uint16 of 16 bits, [height width channels].

    PNG, JPEG, TIFF, WebP, BMP, GIF and JPEG 2000 are read, of several pages or frames the first.
    A picture that its EXIF data turn is turned. Palettes and CMYK become color, 1 bit becomes
    gray. Where channels are given without opacity, transparent pixels are laid over white.

    Attributes:
      column: holds the path to an image file, relative to the table's folder.
      size: (height, width) to bring the images to; None: all images must have one size.
      channels: 1 for gray, 3 for color, 4 with opacity; None: what the files have.
      max_pixels: the largest image that is decoded, by the size that its header declares.
      fit: how to bring an image to the size: "resize" may change its proportions, "crop" scales it
        to cover the size and cuts its margins off, "pad" scales it to lie inside, on black.
      bits: 8 or 16 per channel; None: those of the first image of the training split. Images of 8
        bits become levels of 16; bits=8 reduces 16 to 8.

    Example:
      >>> decode_image(np.zeros((8, 8, 3), np.uint8), Image("photo", size=(4, 6), channels=1)).shape
      (4, 6, 1)
    """

    column: str
    size: tuple[int, int] | None = None
    channels: Literal[1, 3, 4] | None = None
    max_pixels: int = MAX_PIXELS
    fit: Literal["resize", "crop", "pad"] = "resize"
    bits: Literal[8, 16] | None = None

    @staticmethod
    def matches_cells(cells: Sequence[Any]) -> bool:
        """Checks whether all cells end like an image file."""
        return list_suffixes(cells) <= IMAGE_SUFFIXES

    def learn(self, columns: Sequence[Iterable[Any]], source: Any) -> dict[str, Any]:
        """Finds the bits per channel of the first readable file of a folder."""
        if self.bits is not None or not isinstance(source, Path):
            return {}
        for file in columns[0]:
            try:
                header = open_image(source / str(file), self.max_pixels, load=False)
            except UnreadableError:
                continue
            return {"bits": header.bits}
        return {}

    def read_cells(self, cells: Sequence[Any], folder: Path, learned: Learned) -> np.ndarray:
        """Decodes the image whose file name is in the cell."""
        path, bits = folder / str(cells[0]), self.bits or learned.get("bits")
        pixels = decode_image(path, self._replace(bits=16 if bits == 16 else self.bits))
        if bits == 8 and pixels.dtype == np.uint16:
            raise ValueError(
                f"{path} has 16 bits per channel, others have 8; give the `Image` bits=16 "
                "or bits=8."
            )
        return pixels

    def read_feature(self, values: Sequence[Any], learned: Learned) -> np.ndarray:
        """Resizes and converts pixels."""
        array = np.asarray(values[0])
        if array.dtype not in (np.uint8, np.uint16) or array.ndim != 3:
            raise ValueError(
                f"it is {array.dtype}{list(array.shape)}, not an image of uint8 or uint16 [h w c]."
            )
        return decode_image(array, self)

    def declare_modality(self, learned: Learned) -> Modality:
        """Returns the modality of arrays of one shape."""
        return Modality(())

    @staticmethod
    def name_axes(x: np.ndarray, modality: Modality) -> tuple[str, str] | None:
        """Names the axes if the example is an image of gray or colored pixels."""
        is_image = not modality.sequence and x.ndim == 3 and x.shape[2] in CHANNELS
        return ("pixel", "pixel") if is_image else None

    @staticmethod
    def draw(axis: Any, x: np.ndarray, scale: RowScale) -> None:
        """Draws the pixels, scaled to 0 to 1 unless they are bytes or lie there already."""
        if x.dtype == np.uint8:
            x = x / 255
        elif scale.low < 0 or scale.high > 1:
            # The guard keeps constant images from division by zero.
            x = (x - scale.low) / max(scale.high - scale.low, 1e-12)
        axis.imshow(x, cmap="gray", vmin=0, vmax=1)
        axis.locator_params(nbins=4, integer=True)


def decode_image(
    source: Path | UInt[np.ndarray, "h w c"], spec: Image
) -> UInt[np.ndarray, "i j o"]:
    """Decodes an image file, or takes given pixels, in the size, channels and bits asked for.

    Raises:
      UnreadableError: naming the file, if it is missing or damaged.
      ValueError: if the kind asks for what no image has, or a file has more bits than others.
    """
    if spec.channels not in (None, *CHANNELS):
        raise ValueError(f"an `Image` cannot have {spec.channels} channels, only 1, 3 or 4.")
    if spec.fit not in ("resize", "crop", "pad"):
        raise ValueError(f"an `Image` has no fit {spec.fit!r}, only 'resize', 'crop' and 'pad'.")
    if isinstance(source, Path):
        opened = open_image(source, spec.max_pixels, reduce=spec.bits == 8)
        picture = opened.picture
    elif spec.size is None and spec.channels in (None, source.shape[-1]):
        return source
    else:
        picture = pixels_to_picture(source)
    picture = convert_picture(picture, spec.channels)
    if spec.size is not None:
        picture = resize_picture(picture, spec.size, spec.fit)
    pixels = picture_to_pixels(picture, spec.channels)
    if spec.bits == 8 and pixels.dtype == np.uint16:
        return (pixels // 257).astype(np.uint8)
    if spec.bits == 16 and pixels.dtype == np.uint8:
        return pixels.astype(np.uint16) * 257  # 255 becomes 65535
    return pixels
